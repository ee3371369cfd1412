//! The local stage as a whole: against a model, after crashes at every step, with damage of every kind, and full.

mod carried;
mod crash;
mod damage;
mod edges;
mod full;
mod kill;
mod looking;
mod model;
mod outages;
mod support;
