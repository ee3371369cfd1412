//! From nodes to types, by serde: whoever reads a value says which type it should have.
//!
//! Where text is wanted, a value is its text as written: `password: 0123` and `database: on` need no quotes. Where
//! a number or a boolean is wanted, it must be one without quotes, or made of variables (`size: "${N:-100}"`: inside of
//! `{…}` YAML demands the quotes). Errors carry the place and path of the inner value that is wrong, say kinds of
//! values rather than values, and never show what a variable held.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};

use super::literal::Literal;
use super::problem::{Position, quotable, suggestion};
use super::tree::{Content, Entry, Node, Scalar};

/// Reads a node as a type.
pub(super) fn read<T: DeserializeOwned>(node: &Node) -> Result<T, ValueError> {
    T::deserialize(node)
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct ValueError {
    pub(super) message: String,
    /// Where; `None` until it passes the node that it is about.
    at: Option<Position>,
    /// Path of the inner value, relative to the one that is read: `[2].send`.
    pub(super) path: String,
}

impl ValueError {
    pub(super) fn at(&self, whole: &Node) -> Position {
        self.at.unwrap_or(whole.at)
    }

    /// Gives the error the place of the innermost node that it passes.
    fn about(mut self, node: &Node) -> Self {
        if self.at.is_none() {
            self.at = Some(node.at);
            self.message = node.conceal(&self.message);
        }
        self
    }

    fn inside(mut self, step: &str) -> Self {
        self.path.insert_str(0, step);
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ValueError {}

impl serde::de::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            at: None,
            path: String::new(),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Unit | Unexpected::Option => "nothing",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a mapping",
            _ => "text",
        };
        Self::custom(format_args!("expected {}, found {found}", wanted(expected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}", wanted(expected)))
    }

    fn invalid_length(found: usize, expected: &dyn Expected) -> Self {
        Self::custom(format_args!(
            "expected {}, found {found} values",
            wanted(expected)
        ))
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let variant = quotable(variant);
        Self::custom(format_args!(
            "unknown value `{variant}`{}",
            suggestion(&variant, known)
        ))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::custom(format_args!("unknown key{}", suggestion(field, known)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the key `{field}` is missing"))
    }
}

/// What serde's own types call themselves, in words for people who never heard of serde.
fn wanted(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    let range = match name.as_str() {
        "u8" => (0, i128::from(u8::MAX)),
        "u16" => (0, i128::from(u16::MAX)),
        "u32" => (0, i128::from(u32::MAX)),
        "u64" | "usize" => (0, i128::from(u64::MAX)),
        "i8" => (i128::from(i8::MIN), i128::from(i8::MAX)),
        "i16" => (i128::from(i16::MIN), i128::from(i16::MAX)),
        "i32" => (i128::from(i32::MIN), i128::from(i32::MAX)),
        "i64" | "isize" => (i128::from(i64::MIN), i128::from(i64::MAX)),
        "f32" | "f64" => return "a number".to_owned(),
        "a string" | "string or map" => return "text".to_owned(),
        "a boolean" => return "true or false".to_owned(),
        "a sequence" => return "a list".to_owned(),
        "a map" => return "a mapping".to_owned(),
        _ if name.starts_with("struct ") => return "a mapping".to_owned(),
        _ => return name,
    };
    format!("a whole number from {} to {}", range.0, range.1)
}

/// What a text without quotes means by YAML's core rules, as far as configurations use them.
enum Plain {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

impl Plain {
    fn of(scalar: &Scalar) -> Self {
        if scalar.is_null() {
            return Self::Null;
        }
        let text = scalar.text.as_str();
        match text {
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            _ => {}
        }
        // Rust reads `inf` and `nan` as numbers too; to YAML they are text.
        if !text.contains(|character: char| character.is_ascii_digit()) {
            return Self::Text;
        }
        if let Ok(number) = text.parse() {
            Self::Unsigned(number)
        } else if let Ok(number) = text.parse() {
            Self::Signed(number)
        } else if let Ok(number) = text.parse() {
            Self::Float(number)
        } else {
            Self::Text
        }
    }

    fn visit<'de, V: Visitor<'de>>(self, text: &str, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Unsigned(number) => visitor.visit_u64(number),
            Self::Signed(number) => visitor.visit_i64(number),
            Self::Float(number) => visitor.visit_f64(number),
            Self::Text => visitor.visit_str(text),
        }
    }
}

/// A value as it is written: quotes decide, and variables stand for text.
pub(super) fn literal(scalar: &Scalar) -> Literal {
    let plain = if scalar.plain && scalar.written.is_none() {
        Plain::of(scalar)
    } else {
        Plain::Text
    };
    match plain {
        Plain::Null => Literal::Null,
        Plain::Bool(value) => Literal::Bool(value),
        Plain::Unsigned(_) | Plain::Signed(_) | Plain::Float(_) => Literal::Number(scalar.text.clone()),
        Plain::Text => Literal::Text(scalar.text.clone()),
    }
}

impl Node {
    /// Without regard to what is wanted: quotes decide.
    fn visit_as_written<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, ValueError> {
        match &self.content {
            Content::Scalar(scalar) if scalar.plain => Plain::of(scalar).visit(&scalar.text, visitor),
            Content::Scalar(scalar) => visitor.visit_str(&scalar.text),
            Content::Sequence(items) => visitor.visit_seq(Items {
                rest: items.iter().enumerate(),
            }),
            Content::Mapping(entries) => visitor.visit_map(Entries {
                rest: entries.iter(),
                value: None,
            }),
        }
        .map_err(|error| error.about(self))
    }

    /// Where text is wanted.
    fn visit_as_text<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, ValueError> {
        match &self.content {
            Content::Scalar(scalar) if !scalar.is_null() => visitor
                .visit_str(&scalar.text)
                .map_err(|error: ValueError| error.about(self)),
            _ => self.visit_as_written(visitor),
        }
    }

    /// Where a number or a boolean is wanted.
    fn visit_as_plain<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, ValueError> {
        match &self.content {
            Content::Scalar(scalar) if scalar.written.is_some() => Plain::of(scalar)
                .visit(&scalar.text, visitor)
                .map_err(|error| error.about(self)),
            _ => self.visit_as_written(visitor),
        }
    }
}

macro_rules! read_with {
    ($how:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            self.$how(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = ValueError;

    read_with!(visit_as_written: deserialize_any deserialize_seq deserialize_map deserialize_unit
        deserialize_ignored_any);
    read_with!(visit_as_text: deserialize_str deserialize_string deserialize_char deserialize_bytes
        deserialize_byte_buf deserialize_identifier);
    read_with!(visit_as_plain: deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64);

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.visit_as_written(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|error: ValueError| error.about(self))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ValueError> {
        self.visit_as_written(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.visit_as_written(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.visit_as_written(visitor)
    }

    /// A variant without a value is its name; one with a value is a mapping of one key: `{ send: … }`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match &self.content {
            Content::Scalar(scalar) if !scalar.is_null() => {
                let name: serde::de::value::StrDeserializer<'_, ValueError> =
                    scalar.text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            Content::Mapping(entries) if entries.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries {
                    rest: entries.iter(),
                    value: None,
                }))
            }
            _ => Err(ValueError::custom(format_args!(
                "expected one of {}, found {}",
                variants.join(", "),
                self.kind()
            ))),
        }
        .map_err(|error| error.about(self))
    }
}

/// A list, item by item.
struct Items<'n> {
    rest: std::iter::Enumerate<std::slice::Iter<'n, std::rc::Rc<Node>>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        let Some((index, item)) = self.rest.next() else {
            return Ok(None);
        };
        seed.deserialize(&**item)
            .map(Some)
            .map_err(|error| error.about(item).inside(&format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// A mapping, entry by entry.
struct Entries<'n> {
    rest: std::slice::Iter<'n, Entry>,
    value: Option<&'n Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ValueError> {
        let Some(entry) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(entry);
        seed.deserialize(entry.key.as_str().into_deserializer())
            .map(Some)
            .map_err(|mut error: ValueError| {
                error.at = Some(entry.at);
                error.inside(&format!(".{}", quotable(&entry.key)))
            })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ValueError> {
        let entry = self
            .value
            .take()
            .ok_or_else(|| ValueError::custom("a value was asked for before its key"))?;
        seed.deserialize(&*entry.value).map_err(|error| {
            error
                .about(&entry.value)
                .inside(&format!(".{}", quotable(&entry.key)))
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}
