//! Which varieties of consumers and producers exist. Another crate adds its own and uses them from `config.yml`
//! (see `examples/custom_variety.rs`).

use std::collections::BTreeMap;

use crate::consumer::ConsumerVariety;
use crate::producer::ProducerVariety;

/// The known varieties by name.
#[derive(Default)]
pub struct Registry {
    consumers: BTreeMap<&'static str, Box<dyn ConsumerVariety>>,
    producers: BTreeMap<&'static str, Box<dyn ProducerVariety>>,
}

impl Registry {
    /// A registry without any variety.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a variety of consumers; one of the same name is replaced.
    pub fn add_consumer(&mut self, variety: impl ConsumerVariety + 'static) -> &mut Self {
        self.consumers.insert(variety.name(), Box::new(variety));
        self
    }

    /// Adds a variety of producers; one of the same name is replaced.
    pub fn add_producer(&mut self, variety: impl ProducerVariety + 'static) -> &mut Self {
        self.producers.insert(variety.name(), Box::new(variety));
        self
    }

    /// The variety of consumers of this name.
    #[must_use]
    pub fn consumer(&self, name: &str) -> Option<&dyn ConsumerVariety> {
        self.consumers.get(name).map(Box::as_ref)
    }

    /// The variety of producers of this name.
    #[must_use]
    pub fn producer(&self, name: &str) -> Option<&dyn ProducerVariety> {
        self.producers.get(name).map(Box::as_ref)
    }

    /// Names of the varieties of consumers, in order.
    pub fn consumer_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.consumers.keys().copied()
    }

    /// Names of the varieties of producers, in order.
    pub fn producer_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.producers.keys().copied()
    }
}
