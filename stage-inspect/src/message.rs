//! A message as it is shown: an object of JSON for programs, pretty JSON or escaped text for people. What a message holds is not
//! trusted: nothing of it reaches a terminal as a control character.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use socket_el::exit::RunnerError;
use socket_el::record::{Message, Offset};

use crate::output::json_failed;
use crate::time::Time;

/// Blanks for each level of pretty JSON.
const INDENT: usize = 2;

/// Levels that are set in further and further; deeper ones are not, so that a hostile message does not grow without bounds.
const MAX_INDENTED: usize = 40;

#[derive(Serialize)]
struct MessageLine<'a> {
    offset: Offset,
    received_at: Time,
    #[serde(flatten)]
    payload: Payload<'a>,
}

/// The payload as JSON if it is JSON, every digit of it as it came, or else its bytes.
#[derive(Serialize)]
enum Payload<'a> {
    #[serde(rename = "message")]
    Json(&'a RawValue),
    #[serde(rename = "payload_base64")]
    Bytes(String),
}

/// The message as one line of JSON, without the end of the line.
pub(crate) fn json_line(offset: Offset, message: Message<'_>) -> Result<String, RunnerError> {
    let payload = match serde_json::from_slice::<&RawValue>(message.payload) {
        Ok(json) => Payload::Json(json),
        Err(_) => Payload::Bytes(STANDARD.encode(message.payload)),
    };
    let received_at = Time(message.received_at);
    let line = MessageLine {
        offset,
        received_at,
        payload,
    };
    // Inside the strings of valid JSON no line ends; outside of them one is as good as a blank.
    let text = serde_json::to_string(&line).map_err(json_failed)?;
    Ok(text.replace(['\n', '\r'], " "))
}

/// The message for people: pretty if it is JSON, its text or bytes escaped if not.
pub(crate) fn pretty(payload: &[u8]) -> String {
    match (
        serde_json::from_slice::<&RawValue>(payload),
        std::str::from_utf8(payload),
    ) {
        (Ok(json), _) => pretty_json(json.get()),
        (Err(_), Ok(text)) => escaped(text),
        (Err(_), Err(_)) => payload.escape_ascii().to_string(),
    }
}

/// The text with its control characters escaped.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Valid JSON set out over lines; numbers and strings stay as they came.
fn pretty_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut is_escape) = (0_usize, false, false);
    let mut characters = json.chars().peekable();
    while let Some(character) = characters.next() {
        if in_string {
            if character.is_control() {
                // Those above 0x7f may stand in a string as they are; a terminal would obey them.
                shown += &format!("\\u{:04x}", u32::from(character));
            } else {
                shown.push(character);
            }
            in_string = is_escape || character != '"';
            is_escape = !is_escape && character == '\\';
            continue;
        }
        match character {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                shown.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    shown.push(end);
                } else {
                    depth += 1;
                    new_line(&mut shown, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut shown, depth);
                shown.push(character);
            }
            ',' => {
                shown.push(',');
                new_line(&mut shown, depth);
            }
            ':' => shown += ": ",
            '"' => {
                in_string = true;
                shown.push('"');
            }
            other => shown.push(other),
        }
    }
    shown
}

fn new_line(shown: &mut String, depth: usize) {
    shown.push('\n');
    shown.extend(std::iter::repeat_n(' ', depth.min(MAX_INDENTED) * INDENT));
}

#[cfg(test)]
mod tests {
    use socket_el::record::Timestamp;

    use super::*;

    fn line(payload: &[u8]) -> String {
        let message = Message {
            payload,
            received_at: Timestamp::from_micros(1),
        };
        json_line(Offset::new(7), message).unwrap()
    }

    #[test]
    fn json_stays_as_it_came_to_the_last_digit_and_on_one_line() {
        assert_eq!(
            line(b"{\"a\":\r\n1.10000000000000000000001,\"b\":\"\\n\"}"),
            "{\"offset\":7,\"received_at\":\"1970-01-01T00:00:00.000001Z\",\
             \"message\":{\"a\":  1.10000000000000000000001,\"b\":\"\\n\"}}"
        );
    }

    #[test]
    fn what_is_not_json_goes_as_its_bytes() {
        for payload in [&b"hello"[..], b"\xff\x00", b"", b"{\"a\":1} x"] {
            let parsed: serde_json::Value = serde_json::from_str(&line(payload)).unwrap();
            let text = parsed["payload_base64"].as_str().unwrap();
            assert_eq!(STANDARD.decode(text).unwrap(), payload);
            assert!(parsed.get("message").is_none());
        }
    }

    #[test]
    fn json_is_set_out_over_lines_without_a_change_to_its_values() {
        assert_eq!(
            pretty(br#"{"a":[1.50,{}, [ ] ],"b":"x\"{,:\\","c":{"d":null}}"#),
            "{\n  \"a\": [\n    1.50,\n    {},\n    []\n  ],\n  \"b\": \"x\\\"{,:\\\\\",\n  \"c\": {\n    \"d\": null\n  }\n}"
        );
        assert_eq!(pretty(b"12"), "12");
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        assert_eq!(pretty("a\u{1b}[31m\n".as_bytes()), "a\\u{1b}[31m\\n");
        assert_eq!(pretty("\"\u{9b}31m\"".as_bytes()), "\"\\u009b31m\"");
        assert_eq!(pretty(b"\xff\x1b\n"), "\\xff\\x1b\\n");
    }

    #[test]
    fn deep_nesting_does_not_make_the_output_grow_by_its_square() {
        let deep = [vec![b'['; 100], vec![b'1'], vec![b']'; 100]].concat();
        assert!(pretty(&deep).len() < 100 * 2 * (MAX_INDENTED * INDENT + 2) + 2);
    }
}
