//! Answers of an HTTP server that are not what was asked for: what they mean for the operator, and when it is worth asking again.

use std::time::{Duration, SystemTime};

use hyper::http::header::RETRY_AFTER;
use hyper::http::{Response, StatusCode};

use crate::backoff::Backoff;

/// The longest that a server's `Retry-After` is obeyed: a server that errs about it is not to keep a feed away for days.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);
/// What only an operator can mend is tried again after half of this to all of it.
const OPERATOR_RETRY: Duration = Duration::from_secs(120);

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Remedy {
    /// By the ordinary delays.
    Backoff,
    /// Not before this time is over, for so the server asks.
    After(Duration),
    /// Rarely: it stays as it is until somebody changes something.
    Operator,
}

impl Remedy {
    /// How long to wait before the next attempt.
    pub(in crate::consumer) fn delay(self, backoff: &mut Backoff) -> Duration {
        let more = match self {
            Self::Backoff => Duration::ZERO,
            Self::After(wait) => wait,
            Self::Operator => OPERATOR_RETRY.mul_f64(rand::random_range(0.5..=1.0)),
        };
        backoff.next_delay() + more
    }
}

/// An answer that is not what was asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::consumer) struct Refusal {
    status: StatusCode,
    /// What the server asks for, as it asks.
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(in crate::consumer) fn of<B>(response: &Response<B>) -> Self {
        Self {
            status: response.status(),
            retry_after: retry_after(response, SystemTime::now()),
        }
    }

    pub(in crate::consumer) fn remedy(&self) -> Remedy {
        match self.retry_after {
            Some(wait) if asks_for_time(self.status) => Remedy::After(wait.min(MAX_RETRY_AFTER)),
            _ if is_configuration(self.status) => Remedy::Operator,
            _ => Remedy::Backoff,
        }
    }

    /// What it means for the operator; `otherwise` when the status alone does not tell.
    pub(in crate::consumer) fn meaning(&self, otherwise: &str) -> String {
        let status = self.status;
        let meaning = match status {
            StatusCode::UNAUTHORIZED => {
                "it wants credentials, or others: see auth, headers, or user and password in uri"
            }
            StatusCode::FORBIDDEN => {
                "it forbids access: see the credentials, and from where it lets clients in"
            }
            StatusCode::NOT_FOUND => "it has no feed at this path: see uri",
            StatusCode::TOO_MANY_REQUESTS => {
                "it had too many connections or attempts from here; they become rarer now"
            }
            status if status.is_redirection() => "its feed has moved: ask its operator for the new uri",
            status if status.is_server_error() => "it has trouble of its own",
            _ => otherwise,
        };
        let asked = self
            .retry_after
            .filter(|_| asks_for_time(status))
            .map_or_else(String::new, |wait| {
                let seconds = wait.as_secs();
                if wait > MAX_RETRY_AFTER {
                    let most = MAX_RETRY_AFTER.as_secs();
                    format!(" (it asks for {seconds} s of patience, and gets {most} s)")
                } else {
                    format!(" (it asks for {seconds} s of patience)")
                }
            });
        format!("the server answered HTTP {status}; {meaning}{asked}")
    }
}

/// Answers that come with a `Retry-After` to obey.
fn asks_for_time(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Answers that stay the same until the configuration, or the account at the server, is changed.
fn is_configuration(status: StatusCode) -> bool {
    status.is_redirection()
        || matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
        )
}

/// `Retry-After`: seconds, or a date.
fn retry_after<B>(response: &Response<B>, now: SystemTime) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Refusal {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(value) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, value.parse().unwrap());
        }
        Refusal::of(&response)
    }

    #[test]
    fn each_answer_has_its_remedy() {
        for status in [401, 403, 404, 301, 308] {
            assert_eq!(answer(status, Some("5")).remedy(), Remedy::Operator, "{status}");
        }
        for status in [400, 410, 426, 500, 502, 503, 429, 200] {
            assert_eq!(answer(status, None).remedy(), Remedy::Backoff, "{status}");
        }
        let seconds = Duration::from_secs;
        for status in [429, 503] {
            assert_eq!(answer(status, Some(" 7 ")).remedy(), Remedy::After(seconds(7)));
            assert_eq!(answer(status, Some("soon")).remedy(), Remedy::Backoff);
            assert_eq!(
                answer(status, Some("Wed, 21 Oct 2015 07:28:00 GMT")).remedy(),
                Remedy::After(Duration::ZERO),
                "a date that is over"
            );
            assert_eq!(
                answer(status, Some("86400")).remedy(),
                Remedy::After(MAX_RETRY_AFTER)
            );
            assert_eq!(
                answer(status, Some("18446744073709551616")).remedy(),
                Remedy::Backoff
            );
        }
        assert_eq!(answer(500, Some("7")).remedy(), Remedy::Backoff);
        let said = answer(429, Some("86400")).meaning("");
        assert!(said.contains("86400 s of patience, and gets 900 s"), "{said}");
        assert!(!answer(500, Some("7")).meaning("").contains("patience"));
    }

    #[test]
    fn a_date_is_counted_from_now() {
        let now = SystemTime::now();
        let date = httpdate::fmt_http_date(now + Duration::from_secs(100));
        let mut response = Response::new(());
        response.headers_mut().insert(RETRY_AFTER, date.parse().unwrap());
        let wait = retry_after(&response, now).unwrap();
        assert!(
            wait > Duration::from_secs(98) && wait <= Duration::from_secs(100),
            "{wait:?}"
        );
    }
}
