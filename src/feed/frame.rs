//! Writes the frames of a server's data messages. Done by hand because the WebSocket library allocates and copies for every
//! message, which would make the feed the slowest part of what it is to measure. Control frames are left to the library.

/// What a data frame says its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// The bit of the first byte that says that the message ends with this frame.
const FINAL: u8 = 0x80;
/// The greatest length that stands in the second byte itself.
const SHORT_MAX: usize = 125;
/// Second byte when the length follows in two bytes.
const LENGTH_16: u8 = 126;
/// Second byte when the length follows in eight bytes.
const LENGTH_64: u8 = 127;

/// Appends one unfragmented, unmasked message to `out`.
pub(super) fn push_message(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let opcode = match kind {
        Kind::Text => 1,
        Kind::Binary => 2,
    };
    out.push(FINAL | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len), _) if payload.len() <= SHORT_MAX => out.push(len),
        (_, Ok(len)) => {
            out.push(LENGTH_16);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_the_shortest_form_that_holds_it() {
        for (len, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            push_message(&mut out, Kind::Text, &vec![b'x'; len]);
            assert_eq!(out[..header.len()], header, "{len} bytes");
            assert_eq!(out.len(), header.len() + len);
        }
        let mut out = Vec::new();
        push_message(&mut out, Kind::Binary, b"\xff");
        assert_eq!(out, [0x82, 1, 0xff]);
    }
}
