//! `headers` and `auth`: what a request says of who asks. No message quotes a value: values are often secret.

use std::path::PathBuf;

use hyper::http::header::AUTHORIZATION;
use hyper::http::{HeaderMap, HeaderName, HeaderValue};

use super::authority::Credentials;
use super::token::{FILE_KEY, Token, TokenError};
use crate::config::{Secret, Section};

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// All headers of a request that are not the protocol's own.
#[derive(Default)]
pub(in crate::consumer) struct Headers {
    pub(in crate::consumer) given: HeaderMap,
    pub(in crate::consumer) late: Vec<LateHeader>,
    /// Whether there is a user in `uri`, who becomes a header too.
    is_authorized: bool,
}

/// A header whose value stands in a file.
#[derive(Clone)]
pub(in crate::consumer) struct LateHeader {
    pub(in crate::consumer) name: HeaderName,
    pub(in crate::consumer) value: LateValue,
}

/// How a value is made of what is in the file. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub(in crate::consumer) struct LateValue {
    file: PathBuf,
    form: Form,
}

/// What a header's value is made of.
#[derive(Clone)]
enum Form {
    Plain,
    Bearer,
    Basic { user: Secret },
}

impl LateValue {
    /// The value as it is now.
    pub(in crate::consumer) async fn read(&self) -> Result<HeaderValue, TokenError> {
        let token = Token::File(self.file.clone()).read().await?;
        self.form
            .value(token)
            .ok_or_else(|| TokenError::NotForAHeader(self.file.clone()))
    }
}

impl Form {
    /// `None` when the token has characters that a header can't hold.
    fn value(&self, token: Secret) -> Option<HeaderValue> {
        match self {
            Self::Plain => header_value(token.expose()),
            Self::Bearer => header_value(&format!("Bearer {}", token.expose())),
            Self::Basic { user } => Credentials {
                user: user.clone(),
                password: token,
            }
            .basic(),
        }
    }
}

impl Headers {
    fn has(&self, name: &HeaderName) -> bool {
        (self.is_authorized && *name == AUTHORIZATION)
            || self.given.contains_key(name)
            || self.late.iter().any(|late| late.name == *name)
    }

    /// `false` when the token is given and has characters that a header can't hold.
    fn add(&mut self, name: HeaderName, token: Token, form: Form) -> bool {
        match token {
            Token::File(file) => {
                let value = LateValue { file, form };
                self.late.push(LateHeader { name, value });
                true
            }
            Token::Given(token) => match form.value(token) {
                Some(value) => {
                    self.given.insert(name, value);
                    true
                }
                None => false,
            },
        }
    }
}

/// `headers` and `auth`. `is_authorized`: there is a user in `uri`. `reserved` tells why a header can't be given.
pub(in crate::consumer) fn read_headers(
    section: &mut Section<'_>,
    is_authorized: bool,
    reserved: fn(&HeaderName) -> Option<&'static str>,
) -> Headers {
    let mut headers = Headers {
        is_authorized,
        ..Headers::default()
    };
    read_auth(section, &mut headers);
    read_given(section, &mut headers, reserved);
    headers
}

/// Adds the headers to a request's; files are read now.
pub(in crate::consumer) async fn apply(
    given: &HeaderMap,
    late: &[LateHeader],
    to: &mut HeaderMap,
) -> Result<(), TokenError> {
    for (name, value) in given {
        to.insert(name, value.clone());
    }
    for header in late {
        to.insert(header.name.clone(), header.value.read().await?);
    }
    Ok(())
}

/// `auth`: one of `basic` and `bearer`.
fn read_auth(section: &mut Section<'_>, headers: &mut Headers) {
    let Some(mut auth) = section.section("auth") else {
        return;
    };
    let basic = auth.section("basic");
    let bearer = auth.contains("bearer").then(|| read_token(&mut auth, "bearer"));
    let (key, token, form) = match (basic, bearer) {
        (Some(_), Some(_)) => return section.problem("auth", "takes one of basic and bearer"),
        (None, None) => {
            let example = "needs basic: { user: …, password: … } or bearer: …";
            return section.problem("auth", example);
        }
        (None, Some(token)) => ("bearer", token, Form::Bearer),
        (Some(mut basic), None) => {
            let user: Option<Secret> = basic.required("user");
            let token = read_token(&mut basic, "password");
            let user = user.unwrap_or_else(|| Secret::new(""));
            if user.expose().contains(':') {
                basic.problem("user", "holds a colon, which basic authentication can't send");
            }
            ("basic", token, Form::Basic { user })
        }
    };
    let Some(token) = token else {
        return;
    };
    if headers.has(&AUTHORIZATION) {
        section.problem("auth", "is given twice: here, and by the user in `uri`");
    } else if !headers.add(AUTHORIZATION, token, form) {
        auth.problem(key, "has characters that a header can't hold");
    }
}

/// A text, or `{ file: path }`. `None` when a problem was reported.
fn read_token(section: &mut Section<'_>, key: &str) -> Option<Token> {
    match section.optional::<serde_yaml::Value>(key) {
        Some(serde_yaml::Value::Mapping(_)) => {
            let file: PathBuf = section.section(key)?.required(FILE_KEY)?;
            Some(Token::File(file))
        }
        _ => section.required(key).map(Token::Given),
    }
}

fn read_given(
    section: &mut Section<'_>,
    headers: &mut Headers,
    reserved: fn(&HeaderName) -> Option<&'static str>,
) {
    let Some(mut given) = section.section("headers") else {
        return;
    };
    let names: Vec<&str> = given.keys().collect();
    if names.len() > MAX_HEADERS {
        section.problem("headers", &format!("has more than {MAX_HEADERS} entries"));
    }
    for written in names {
        let Some(token) = read_token(&mut given, written) else {
            continue;
        };
        let name = HeaderName::try_from(written);
        let why_not = name.as_ref().ok().and_then(reserved);
        let problem = match name {
            Err(_) => format!("{written:?} can't be the name of a header"),
            Ok(name) if why_not.is_some() => format!("{name} {}", why_not.unwrap_or_default()),
            Ok(name) if headers.has(&name) => {
                format!("{name} is given twice, here and by `auth` or the user in `uri`, or in two spellings")
            }
            Ok(name) => {
                if headers.add(name, token, Form::Plain) {
                    continue;
                }
                format!("the value of {written} has characters that a header can't hold")
            }
        };
        section.problem("headers", &problem);
    }
}

/// The value of a header, marked as not to be shown. `None` when it has other characters than printable ASCII.
fn header_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.to_str().ok()?;
    value.set_sensitive(true);
    Some(value)
}
