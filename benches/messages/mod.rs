//! The messages that are measured with: a narrow trade of about 165 bytes, a wide ticker of 25 columns, a nested order book, and
//! a trade whose numbers are strings, as most exchanges send them.

use std::fmt::Write as _;

/// The `n`th message of a kind.
pub(crate) type Make = fn(n: u64) -> String;

/// A trade with nine keys, as `socket-el feed` sends it.
pub(crate) fn narrow(n: u64) -> String {
    format!(
        r#"{{"exchange":"binance","base":"bitcoin","quote":"tether","direction":"buy","price":{}.{:02},"volume":0.00{},"timestamp":{},"priceUsd":{}.15,"seq":{n}}}"#,
        27_000 + n % 100,
        n % 97,
        100 + n % 900,
        1_695_000_000_000 + n,
        27_000 + n % 90,
    )
}

/// A ticker of 25 columns.
pub(crate) fn wide(n: u64) -> String {
    let mut message = format!(
        r#"{{"e":"24hrTicker","E":{},"s":"BTCUSDT""#,
        1_695_000_000_000 + n
    );
    for key in 'f'..='p' {
        let _ = write!(
            message,
            r#","{key}":"{}.{:08}""#,
            27_000 + n % 50,
            n * 37 % 99_999_999
        );
    }
    for key in 'A'..='K' {
        if key != 'E' {
            let _ = write!(message, r#","{key}":{}"#, n * 1_000);
        }
    }
    message.push_str(r#","open":true}"#);
    message
}

/// An order book of 20 levels on each side.
pub(crate) fn nested(n: u64) -> String {
    let levels: Vec<_> = (0..20)
        .map(|level| format!(r#"["{}.{level:02}","0.{:05}"]"#, 27_000 + n % 9, n % 99_999))
        .collect();
    let levels = levels.join(",");
    format!(r#"{{"lastUpdateId":{n},"bids":[{levels}],"asks":[{levels}],"meta":{{"depth":20}}}}"#)
}

/// A trade whose price and quantity are decimals in strings.
pub(crate) fn decimals(n: u64) -> String {
    format!(
        r#"{{"e":"trade","E":{0},"s":"BTCUSDT","t":{n},"p":"{1}.{2:08}","q":"0.{3:08}","T":{0},"m":{4}}}"#,
        1_695_000_000_000 + n,
        27_000 + n % 100,
        n * 37 % 99_999_999,
        n * 101 % 99_999_999,
        n.is_multiple_of(2)
    )
}
