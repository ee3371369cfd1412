//! `socket-el` keeps WebSocket feeds in PostgreSQL without losing or doubling a message.
//!
//! It is two halves joined by a durable queue, so that either half can stop while the other goes on:
//!
//! ```text
//! WebSocket ──> consumer ──> stage (sled trees on disk) ──> producer ──> PostgreSQL
//!               batches       ordered, durable queue         cursor       rows + cursor in one transaction
//! ```
//!
//! The words name the roles around the *source* and the *sink*: a **consumer** takes messages from a source
//! and writes them to its stage; a **producer** reads stages and delivers them to a sink.
//!
//! The map of the crate, in the order in which a message travels:
//!
//! | module | what it holds |
//! |---|---|
//! | [`record`] | what travels: offsets, timestamps, batches of messages |
//! | [`consumer`] | the trait, the batcher that all consumers share, the varieties `socket` and `http` |
//! | [`stage`] | the trait of a durable ordered queue, its implementation on sled, and the one that asks another process |
//! | [`producer`] | the trait, and the `postgres` variety |
//! | [`config`] | `config.yml` and profiles: from text with positions to typed values |
//! | [`json_path`] | places in JSON, as the configuration names them |
//! | [`backoff`] | how long to wait before trying again |
//! | [`registry`] | which varieties of runners exist; other crates add theirs here |
//! | [`feed`] | a server that plays messages, for trying and testing without a network |
//! | [`probe`] | looks at a feed, and says what it sends and how to keep it |
//! | [`control`] | serves the stages of a running engine to tools and other processes |
//! | [`manual`] | shell completions and man pages of both commands |
//! | [`pipeline`] | wires runners and stages of a configuration, supervises and stops them |
//! | [`private_postgres`] | a PostgreSQL of one's own, for the demonstration and the tests |

pub mod backoff;
pub mod cli;
pub mod commands;
pub mod config;
pub mod consumer;
pub mod control;
pub mod exit;
pub mod feed;
pub mod json_path;
pub mod manual;
mod name;
pub mod pipeline;
pub mod private_postgres;
pub mod probe;
pub mod producer;
pub mod record;
pub mod registry;
pub mod stage;
pub mod stats;
pub mod supervisor;
mod system_roots;
pub mod telemetry;
