//! The list `runners`: what every runner has, and how they refer to each other.
//!
//! Keys of a single variety are read by the variety itself, see [`ConsumerVariety`](crate::consumer::ConsumerVariety)
//! and [`ProducerVariety`](crate::producer::ProducerVariety).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::problem::{Position, Problems, quotable, suggestion};
use super::profile::Profiles;
use super::section::Section;
use super::stage::{StageConfig, read_batch_limits};
use super::tree::join;
use crate::consumer::sequence::Sequence;
use crate::consumer::{BatchLimits, Consumer};
use crate::name;
use crate::producer::{Producer, Start};
use crate::registry::Registry;

/// Types of runners.
const TYPES: [&str; 2] = ["consumer", "producer"];

/// What `config.yml` says.
#[derive(Debug)]
pub struct Config {
    /// The consumers, in the order of the file.
    pub consumers: Vec<ConsumerRunner>,
    /// The producers, in the order of the file.
    pub producers: Vec<ProducerRunner>,
}

/// The stage of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredStage {
    /// The consumer's name, and so the stage's.
    pub name: String,
    /// Where and how it is kept.
    pub config: StageConfig,
    /// Names of the producers that deliver it.
    pub producers: Vec<String>,
}

/// A runner of type `consumer`.
pub struct ConsumerRunner {
    /// Its name, which is its stage's too.
    pub name: String,
    /// Where its messages are kept.
    pub stage: StageConfig,
    /// When a batch closes.
    pub batch: BatchLimits,
    /// Where messages have the source's own numbers, if those are to be checked.
    pub sequence: Option<Sequence>,
    /// The consumer itself, ready to run.
    pub consumer: Box<dyn Consumer>,
}

/// A runner of type `producer`.
pub struct ProducerRunner {
    /// Its name, which names its cursors.
    pub name: String,
    /// The consumers whose stages it delivers: at least one, each of the file, none twice.
    pub depends_on: Vec<String>,
    /// Where it begins in a stage that is new to it.
    pub start: Start,
    /// The producer itself, ready to run.
    pub producer: Box<dyn Producer>,
}

impl Config {
    /// The consumer of this name.
    #[must_use]
    pub fn consumer(&self, name: &str) -> Option<&ConsumerRunner> {
        self.consumers.iter().find(|runner| runner.name == name)
    }

    /// The producers that deliver the stage of this consumer.
    pub fn producers_of<'c>(&'c self, consumer: &'c str) -> impl Iterator<Item = &'c ProducerRunner> {
        self.producers
            .iter()
            .filter(move |producer| producer.depends_on.iter().any(|name| name == consumer))
    }
}

impl fmt::Debug for ConsumerRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerRunner")
            .field("name", &self.name)
            .field("stage", &self.stage)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProducerRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerRunner")
            .field("name", &self.name)
            .field("depends_on", &self.depends_on)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// A consumer as far as the relations between runners need it, whether or not the rest of it is sound.
struct Declared {
    at: Position,
    path: String,
    stage: Option<StageConfig>,
    delivered: bool,
}

/// A producer's `depends_on`, to be checked when all consumers are known.
struct Dependencies {
    at: Position,
    path: String,
    names: Vec<String>,
}

/// Reads the runners. Problems are reported to the section's collection; what is returned is then of no use.
pub(super) struct Reader<'r> {
    registry: &'r Registry,
    profiles: &'r Profiles,
    problems: &'r Problems,
    config: Config,
    names: BTreeMap<String, Position>,
    consumers: BTreeMap<String, Declared>,
    dependencies: Vec<Dependencies>,
}

impl<'r> Reader<'r> {
    pub(super) fn new(registry: &'r Registry, profiles: &'r Profiles, problems: &'r Problems) -> Self {
        Self {
            registry,
            profiles,
            problems,
            config: Config {
                consumers: Vec::new(),
                producers: Vec::new(),
            },
            names: BTreeMap::new(),
            consumers: BTreeMap::new(),
            dependencies: Vec::new(),
        }
    }

    /// Reads the whole file; returns the configuration and the warnings.
    pub(super) fn read(mut self, root: &mut Section<'_>) -> (Config, Vec<String>) {
        for mut runner in self.runners(root) {
            self.runner(&mut runner);
        }
        self.check_dependencies();
        self.check_shared_paths();
        let warnings = self.undelivered();
        (self.config, warnings)
    }

    /// Reads only the stages, with the names of their consumers and producers; all other keys are left unread, right or wrong.
    pub(super) fn read_stages(mut self, root: &mut Section<'_>) -> Vec<ConfiguredStage> {
        root.leave_unread();
        let (mut stages, mut producers) = (Vec::new(), Vec::new());
        for mut runner in self.runners(root) {
            runner.leave_unread();
            let name = self.name(&mut runner);
            if runner.contains("depends_on") {
                let stages = runner.optional::<Vec<String>>("depends_on").unwrap_or_default();
                producers.extend(name.map(|name| (name, stages)));
                continue;
            }
            let stage = runner
                .section("stage")
                .and_then(|mut stage| StageConfig::read(&mut stage));
            if let (Some(name), Some(config)) = (name, stage) {
                let producers = Vec::new();
                stages.push(ConfiguredStage {
                    name,
                    config,
                    producers,
                });
            }
        }
        for (producer, delivered) in producers {
            for stage in stages.iter_mut().filter(|stage| delivered.contains(&stage.name)) {
                stage.producers.push(producer.clone());
            }
        }
        stages
    }

    /// The runners of the file: at least one, or else a problem was reported.
    fn runners<'s>(&self, root: &mut Section<'s>) -> Vec<Section<'s>> {
        if !root.contains("runners") {
            root.problem("runners", "is missing: the list of consumers and producers");
        }
        let runners = root.sequence("runners").unwrap_or_default();
        if runners.is_empty() && self.problems.count() == 0 {
            root.problem("runners", "must hold at least one runner");
        }
        runners
    }

    fn runner(&mut self, section: &mut Section<'_>) {
        let name = self.name(section);
        match section.required::<String>("type").as_deref() {
            Some("consumer") => self.consumer(name, section),
            Some("producer") => self.producer(name, section),
            Some(other) => {
                section.problem(
                    "type",
                    &format!("unknown type of runner{}", suggestion(other, &TYPES)),
                );
                section.leave_unread();
            }
            None => section.leave_unread(),
        }
    }

    /// The runner's name, when it is a good one and nobody else's.
    fn name(&mut self, section: &mut Section<'_>) -> Option<String> {
        let name: String = section.required("name")?;
        section.label(&name);
        if !name::is_well_formed(&name) {
            let message = format!(
                "must be 1 to {} of the characters A-Z a-z 0-9 _ -",
                name::MAX_BYTES
            );
            section.problem("name", &message);
            return None;
        }
        if let Some(first) = self.names.get(&name) {
            let message = format!("is the name of another runner already, in line {}", first.line);
            section.problem("name", &message);
            return None;
        }
        self.names.insert(name.clone(), section.at());
        Some(name)
    }

    fn consumer(&mut self, name: Option<String>, section: &mut Section<'_>) {
        let stage = match section.section("stage") {
            Some(mut stage) => StageConfig::read(&mut stage),
            None => {
                if !section.contains("stage") {
                    section.problem(
                        "stage",
                        "is missing: write for instance `stage: { type: local, path: tmp }`",
                    );
                }
                None
            }
        };
        if let Some(name) = &name {
            let declared = Declared {
                at: section.at(),
                path: section.path().to_owned(),
                stage: stage.clone(),
                delivered: false,
            };
            self.consumers.insert(name.clone(), declared);
        }
        let batch = read_batch_limits(section);
        let sequence = Sequence::read(section);
        let registry = self.registry;
        let variety = find_variety(
            section,
            |name| registry.consumer(name),
            || registry.consumer_names().collect(),
        );
        let Some(variety) = variety else { return };
        let consumer = configured(section, |section| {
            variety.configure(name.as_deref().unwrap_or_default(), section)
        });
        if let (Some(name), Some(stage), Some(consumer)) = (name, stage, consumer) {
            self.config.consumers.push(ConsumerRunner {
                name,
                stage,
                batch,
                sequence,
                consumer,
            });
        }
    }

    fn producer(&mut self, name: Option<String>, section: &mut Section<'_>) {
        let depends_on = section.required::<Vec<String>>("depends_on");
        if let Some(names) = &depends_on {
            if names.is_empty() {
                section.problem("depends_on", "must name at least one consumer");
            }
            self.dependencies.push(Dependencies {
                at: section.place("depends_on"),
                path: join(section.path(), "depends_on"),
                names: names.clone(),
            });
        }
        let start = section.or("start", Start::Oldest);
        let (registry, profiles) = (self.registry, self.profiles);
        let variety = find_variety(
            section,
            |name| registry.producer(name),
            || registry.producer_names().collect(),
        );
        let Some(variety) = variety else { return };
        let producer = configured(section, |section| {
            variety.configure(name.as_deref().unwrap_or_default(), section, profiles)
        });
        if let (Some(name), Some(depends_on), Some(producer)) = (name, depends_on, producer) {
            self.config.producers.push(ProducerRunner {
                name,
                depends_on,
                start,
                producer,
            });
        }
    }

    /// Every name in a `depends_on` is a consumer's, and stands there once.
    fn check_dependencies(&mut self) {
        for Dependencies { at, path, names } in &self.dependencies {
            for (index, name) in names.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if names.iter().take(index).any(|earlier| earlier == name) {
                    let message = format!("`{}` is named twice", quotable(name));
                    self.problems.add(*at, path, message);
                    continue;
                }
                match self.consumers.get_mut(name) {
                    Some(consumer) => consumer.delivered = true,
                    None if self.names.contains_key(name) => {
                        let message =
                            format!("`{name}` is no consumer; a producer delivers the stages of consumers");
                        self.problems.add(*at, path, message);
                    }
                    None => {
                        let known: Vec<&str> = self.consumers.keys().map(String::as_str).collect();
                        let name = quotable(name);
                        let message = format!("there is no consumer `{name}`{}", suggestion(&name, &known));
                        self.problems.add(*at, path, message);
                    }
                }
            }
        }
    }

    /// Stages of one path are kept in the same files, in the same way.
    fn check_shared_paths(&self) {
        let mut first_of: BTreeMap<&Path, (&str, &StageConfig)> = BTreeMap::new();
        for (name, declared) in &self.consumers {
            let Some(stage) = &declared.stage else { continue };
            let Some((first, theirs)) = first_of.get(stage.path.as_path()) else {
                first_of.insert(&stage.path, (name, stage));
                continue;
            };
            let disagreements = theirs.disagreements(stage);
            if !disagreements.is_empty() {
                let message = format!(
                    "the runners `{first}` and `{name}` share the path {} and must agree on {}",
                    stage.path.display(),
                    disagreements.join(", ")
                );
                self.problems
                    .add(declared.at, join(&declared.path, "stage"), message);
            }
        }
    }

    fn undelivered(&self) -> Vec<String> {
        self.consumers
            .values()
            .filter(|consumer| !consumer.delivered)
            .map(|consumer| {
                format!(
                    "{}:{}:{}: {}: no producer delivers it: its stage grows up to max_bytes",
                    self.problems.file(),
                    consumer.at.line,
                    consumer.at.column,
                    consumer.path
                )
            })
            .collect()
    }
}

/// The variety that a runner names. `None` when a problem was reported; nobody can then say which other keys belong.
fn find_variety<V>(
    section: &mut Section<'_>,
    find: impl FnOnce(&str) -> Option<V>,
    known: impl FnOnce() -> Vec<&'static str>,
) -> Option<V> {
    let variety = section.required::<String>("variety").and_then(|name| {
        let found = find(&name);
        if found.is_none() {
            let known = known();
            let message = format!(
                "unknown variety `{}`{}",
                quotable(&name),
                suggestion(&name, &known)
            );
            section.problem("variety", &message);
        }
        found
    });
    if variety.is_none() {
        section.leave_unread();
    }
    variety
}

/// What a variety makes of its keys. One that refuses a sound file without a word is itself a problem: somebody must
/// know.
fn configured<R>(
    section: &mut Section<'_>,
    configure: impl FnOnce(&mut Section<'_>) -> Option<R>,
) -> Option<R> {
    let runner = configure(section);
    if runner.is_none() && section.is_sound() {
        section.problem("variety", "refuses this runner without saying why");
    }
    runner
}
