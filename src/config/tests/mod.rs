//! Tests of the whole way from a text to a typed configuration, with varieties made for them.

mod checks;
mod places;
mod profiles;
mod robustness;
mod sample;

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use serde::de::IgnoredAny;

use super::units::Span;
use super::*;
use crate::consumer::{Consumer, ConsumerContext, ConsumerVariety};
use crate::exit::RunnerError;
use crate::producer::{Producer, ProducerContext, ProducerVariety};

struct Idle;

#[async_trait]
impl Consumer for Idle {
    async fn run(self: Box<Self>, _: ConsumerContext) -> Result<(), RunnerError> {
        Ok(())
    }
}

#[async_trait]
impl Producer for Idle {
    async fn run(self: Box<Self>, _: ProducerContext) -> Result<(), RunnerError> {
        Ok(())
    }
}

/// Knows a few keys of each kind, and asks for a profile.
struct Strict;

impl ConsumerVariety for Strict {
    fn name(&self) -> &'static str {
        "socket"
    }

    fn configure(&self, _: &str, section: &mut Section<'_>) -> Option<Box<dyn Consumer>> {
        let uri: Option<String> = section.required("uri");
        section.or("headers", BTreeMap::<String, String>::new());
        if let Some(mut ping) = section.section("ping") {
            ping.optional::<Span>("interval");
        }
        uri.map(|_| Box::new(Idle) as Box<dyn Consumer>)
    }
}

impl ProducerVariety for Strict {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn configure(
        &self,
        _: &str,
        section: &mut Section<'_>,
        profiles: &Profiles,
    ) -> Option<Box<dyn Producer>> {
        let profile: String = section.required("profile")?;
        match profiles.get(&profile) {
            Ok(_) => Some(Box::new(Idle)),
            Err(error) => {
                section.problem("profile", &error.to_string());
                None
            }
        }
    }
}

/// Takes any keys.
struct Permissive;

impl Permissive {
    fn accept(section: &mut Section<'_>) -> Option<Box<Idle>> {
        for key in section.keys() {
            section.optional::<IgnoredAny>(key);
        }
        Some(Box::new(Idle))
    }
}

impl ConsumerVariety for Permissive {
    fn name(&self) -> &'static str {
        "socket"
    }

    fn configure(&self, _: &str, section: &mut Section<'_>) -> Option<Box<dyn Consumer>> {
        Self::accept(section).map(|idle| idle as Box<dyn Consumer>)
    }
}

impl ProducerVariety for Permissive {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn configure(&self, _: &str, section: &mut Section<'_>, _: &Profiles) -> Option<Box<dyn Producer>> {
        Self::accept(section).map(|idle| idle as Box<dyn Producer>)
    }
}

fn strict() -> Registry {
    let mut registry = Registry::empty();
    registry.add_consumer(Strict).add_producer(Strict);
    registry
}

fn permissive() -> Registry {
    let mut registry = Registry::empty();
    registry.add_consumer(Permissive).add_producer(Permissive);
    registry
}

/// Reads a text with exactly these variables.
fn load_with(text: &str, registry: &Registry, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let options = LoadOptions {
        profiles: None,
        variables: Variables::fixed(variables.iter().copied()),
    };
    Config::parse(Path::new("config.yml"), text, registry, &options)
}

/// Reads a text that needs no profile.
fn load(text: &str) -> Result<Loaded, ConfigError> {
    load_with(text, &permissive(), &[])
}

/// The lines that a wrong text is answered with.
fn mistakes(text: &str) -> Vec<String> {
    lines(&load_with(text, &strict(), &[]).unwrap_err())
}

fn lines(error: &ConfigError) -> Vec<String> {
    error.to_string().lines().map(str::to_owned).collect()
}

/// One consumer and one producer, with more keys for the consumer.
fn with_consumer_keys(keys: &str) -> String {
    format!(
        "runners:
  - name: feed
    type: consumer
    variety: socket
    uri: ws://localhost:1
{keys}
  - {{ name: sink, type: producer, variety: postgres, depends_on: [feed], profile: p }}
"
    )
}
