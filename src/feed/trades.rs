//! Generated trades: objects of the shape that public trade feeds have, with a running number in `seq`.
//!
//! Everything but `timestamp` follows from the exchange and the number, so that a test knows what it must find.

/// What is traded: the part of a trade's JSON from the base on, and the middle of its price in cents.
const PAIRS: [(&[u8], u64); 8] = [
    (br#","base":"bitcoin","quote":"tether","direction":""#, 6_712_345),
    (br#","base":"ethereum","quote":"tether","direction":""#, 352_817),
    (br#","base":"solana","quote":"tether","direction":""#, 14_276),
    (br#","base":"litecoin","quote":"bitcoin","direction":""#, 8_431),
    (br#","base":"monero","quote":"bitcoin","direction":""#, 16_644),
    (br#","base":"chainlink","quote":"ethereum","direction":""#, 1_397),
    (br#","base":"ripple","quote":"euro","direction":""#, 152),
    (br#","base":"cardano","quote":"euro","direction":""#, 139),
];

/// Volumes lie below this many hundred-thousandths.
const VOLUME_LIMIT: u64 = 500_000;

/// Writes the trades of one exchange.
#[derive(Clone, Debug)]
pub(super) struct Trades {
    /// The JSON of a trade up to and with the exchange's name, quoted.
    head: Vec<u8>,
}

impl Trades {
    /// Trades of the exchange of this name; any characters will do.
    pub(super) fn of(exchange: &str) -> Self {
        let name = serde_json::Value::from(exchange);
        Self {
            head: format!(r#"{{"exchange":{name}"#).into_bytes(),
        }
    }

    /// Replaces the content of `out` with the trade of number `seq`.
    pub(super) fn write(&self, seq: u64, timestamp_ms: u64, out: &mut Vec<u8>) {
        let mut numbers = itoa::Buffer::new();
        let chance = scattered(seq);
        let (pair, middle_cents) = PAIRS[(chance & 7) as usize];
        // Within a hundredth of the middle, at least a cent.
        let cents = middle_cents - middle_cents / 200 + (chance >> 8) % (middle_cents / 100 + 1);
        let volume = 1 + (chance >> 32) % VOLUME_LIMIT;

        out.clear();
        out.extend_from_slice(&self.head);
        out.extend_from_slice(pair);
        out.extend_from_slice(if chance & 8 == 0 { b"buy" } else { b"sell" });
        out.extend_from_slice(br#"","price":"#);
        push_decimal::<2>(out, cents, &mut numbers);
        out.extend_from_slice(br#","volume":"#);
        push_decimal::<5>(out, volume, &mut numbers);
        out.extend_from_slice(br#","timestamp":"#);
        out.extend_from_slice(numbers.format(timestamp_ms).as_bytes());
        out.extend_from_slice(br#","priceUsd":"#);
        push_decimal::<2>(out, cents, &mut numbers);
        out.extend_from_slice(br#","seq":"#);
        out.extend_from_slice(numbers.format(seq).as_bytes());
        out.push(b'}');
    }
}

/// Appends `units` of ten to the minus `DIGITS` as a decimal number.
fn push_decimal<const DIGITS: usize>(out: &mut Vec<u8>, units: u64, numbers: &mut itoa::Buffer) {
    let mut rest = units;
    let mut fraction = [b'0'; DIGITS];
    for digit in fraction.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(numbers.format(rest).as_bytes());
    out.push(b'.');
    out.extend_from_slice(&fraction);
}

/// The finaliser of SplitMix64: neighbouring numbers become unlike ones.
fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trade_is_json_with_the_fields_of_a_trade_and_its_number() {
        let trades = Trades::of("bin\"ance");
        let mut out = Vec::new();
        let mut bytes = 0;
        for seq in (0..1_000).chain([u64::MAX]) {
            trades.write(seq, 1_700_000_000_123, &mut out);
            bytes += out.len();
            let trade: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).unwrap();
            assert_eq!(trade["seq"], seq);
            assert_eq!(trade["exchange"], "bin\"ance");
            assert_eq!(trade["timestamp"], 1_700_000_000_123_u64);
            assert_eq!(trade["price"], trade["priceUsd"]);
            assert!(trade["price"].as_f64().unwrap() >= 1.0);
            assert!((0.000_01..=5.0).contains(&trade["volume"].as_f64().unwrap()));
            assert!(["buy", "sell"].contains(&trade["direction"].as_str().unwrap()));
            assert_eq!(trade.len(), 9, "base and quote, and nothing else");
        }
        assert!((150..180).contains(&(bytes / 1_001)), "{bytes} bytes");
    }

    #[test]
    fn decimals_keep_their_leading_zeros() {
        let mut out = Vec::new();
        push_decimal::<5>(&mut out, 7, &mut itoa::Buffer::new());
        out.push(b' ');
        push_decimal::<2>(&mut out, 12_305, &mut itoa::Buffer::new());
        assert_eq!(out, b"0.00007 123.05");
    }
}
