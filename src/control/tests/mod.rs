//! The engine's side and the client's against each other, on real stages.

mod protocol;
mod remote;
mod restarts;
mod same_answers;
mod support;
