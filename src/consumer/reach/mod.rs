//! How a consumer reaches the server that is its source: where it is, through which proxy, with which TLS, tokens and headers;
//! and what it means when that fails. What is then said is left to the varieties.

pub(super) mod authority;
pub(super) mod connect;
pub(super) mod endpoint;
pub(super) mod headers;
pub(super) mod proxy;
pub(super) mod refusal;
pub(super) mod settings;
pub(super) mod tls;
pub(super) mod token;
