//! The producer against a real PostgreSQL, with a stage in memory.

mod batching;
mod conditions;
mod counts;
mod epochs;
mod exactly_once;
mod isolation;
mod ledger;
mod operator;
mod outage;
mod poison;
mod poison_limit;
mod probe;
mod replay;
mod retry;
mod routes;
mod routes_operator;
mod skip;
mod starting;
mod support;
mod upsert;
mod upsert_table;
