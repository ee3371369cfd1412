//! `socket-el probe`: looks at a feed, and says what it sends and how to keep it.
//!
//! The way of it: the command line becomes the keys of a consumer ([`draft`]), which are read and tried by the consumer's own
//! code ([`Trial`]). What it hears is kept within limits ([`heard`]), told apart ([`kinds`](mod@kinds), [`shape`]), and suggests keys
//! ([`advice`]). The consumer with these keys hears the same messages again; what is data to it is what the table is inferred
//! from, by the sink's own code ([`Sample`]). What a mapping could say beyond that stands there in comments ([`mapping`]). So
//! what is printed ([`report`]) belongs together.
//!
//! No secret that was given is printed: [`secrets`] puts variables in their place, and hides them where a server sends
//! them back.

mod advice;
mod args;
mod draft;
mod heard;
mod kinds;
mod mapping;
mod report;
mod secrets;
mod shape;
#[cfg(test)]
mod tests;
mod yaml;

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

pub use args::ProbeArgs;

use advice::{Meaning, advise, meaning};
use draft::Draft;
use heard::Heard;
use kinds::{Kind, kinds};
use report::{ColumnReport, HandshakeReport, KindReport, Report};
use secrets::Secrets;

use crate::consumer::socket::{Handshake, Role, Seen, Trial, TrialEnd};
use crate::exit::{ExitReason, RunnerError};
use crate::producer::postgres::table::{Mapping, RouterOptions, Sample, Sampled};
use crate::record::{Message, Offset, Timestamp};

/// Who looks for a short time wants to see how a ping is answered.
const PINGS: u32 = 3;
/// The longest time between two pings of ours, as a consumer has it by default.
const MAX_PING_INTERVAL: Duration = Duration::from_secs(20);
/// The schema of the table that is shown; a profile names another.
const SCHEMA: &str = "public";
/// The name of the producer that is printed, and of its profile.
const PRODUCER: &str = "postgres";

/// Looks at the feed and prints what was found.
///
/// # Errors
/// When the arguments are wrong, the feed can't be connected to, or it lets nobody subscribe.
pub async fn run(args: ProbeArgs, stop: CancellationToken) -> Result<(), RunnerError> {
    let wrong = |error: String| RunnerError::new(ExitReason::Configuration, error);
    let draft = Draft::of(&args).map_err(wrong)?;
    let mut secrets = Secrets::of(&draft.name);
    let shown = draft.without_secrets(&mut secrets);
    let mut trial = draft.trial().map_err(wrong)?;
    let time = Duration::from_secs(args.seconds);
    trial.ping_within((time / PINGS).min(MAX_PING_INTERVAL));
    let variables = secrets.variables().map(str::to_owned).collect();
    let Some(listened) = listen(&trial, &shown, secrets, &args, stop).await? else {
        return Ok(());
    };
    let report = look(&draft, &shown, &listened, variables).await;
    let printed = print(&report, args.json);
    let Listened { end, heard, .. } = listened;
    match end {
        TrialEnd::Lost(cause) if heard.subscribed_after.is_none() => Err(RunnerError::new(
            ExitReason::Failed,
            format!(
                "{}: not subscribed: {}",
                shown.uri(),
                heard.secrets().conceal(&cause)
            ),
        )),
        _ if heard.subscribed_after.is_none() => Err(RunnerError::new(
            ExitReason::Failed,
            format!(
                "{}: not subscribed within {} s: an answer that --subscribe waits for did not come",
                shown.uri(),
                args.seconds
            ),
        )),
        _ => printed,
    }
}

/// What came of a trial.
struct Listened {
    handshake: Handshake,
    heard: Heard,
    end: TrialEnd,
    time: Duration,
    silence: Duration,
}

/// Connects and listens. `None` when it was stopped before there was a connection.
async fn listen(
    trial: &Trial,
    shown: &Draft,
    secrets: Secrets,
    args: &ProbeArgs,
    stop: CancellationToken,
) -> Result<Option<Listened>, RunnerError> {
    let connected = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(None),
        connected = trial.connect() => connected,
    };
    let connected = connected.map_err(|error| {
        let said = secrets.conceal(&error.to_string());
        RunnerError::new(
            ExitReason::Failed,
            format!("{}: can't connect: {said}", shown.uri()),
        )
    })?;
    let handshake = connected.handshake.clone();
    let mut heard = Heard::new(secrets);
    let begun = Instant::now();
    let most = args.messages.unwrap_or(u64::MAX);
    let enough = stop.child_token();
    let mut ended = None;
    let listening = connected.listen(&enough, |at: Timestamp, seen: Seen<'_>| {
        // What comes while the connection is closed is no part of it.
        if enough.is_cancelled() {
            return;
        }
        heard.see(at, seen);
        if heard.data >= most {
            ended = Some(Instant::now());
            enough.cancel();
        }
    });
    let timer = async {
        tokio::time::sleep(Duration::from_secs(args.seconds)).await;
        enough.cancel();
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = listening => end,
        () = timer => TrialEnd::Stopped,
    };
    let time = Duration::from_secs(args.seconds);
    let ended = ended.unwrap_or_else(Instant::now).min(begun + time);
    Ok(Some(Listened {
        silence: heard.longest_silence(ended),
        time: ended.saturating_duration_since(begun),
        handshake,
        heard,
        end,
    }))
}

/// Makes a report of what was heard.
async fn look(draft: &Draft, shown: &Draft, listened: &Listened, variables: Vec<String>) -> Report {
    let heard = &listened.heard;
    let kinds = kinds(&heard.kept);
    let staged: Vec<_> = kinds
        .iter()
        .filter(|kind| is_data(kind, heard))
        .map(|kind| Kind {
            label: kind.label.clone(),
            members: kind.members.clone(),
        })
        .collect();
    let advice = advise(shown, &staged, heard, listened.silence);
    let roles = rehear(draft, &staged, listened).await;
    let name = &shown.name;
    let mut table = sample(name);
    let data = || {
        heard
            .kept
            .iter()
            .zip(&roles)
            .filter(|(_, role)| **role == Role::Data)
    };
    for (index, (kept, _)) in data().enumerate() {
        table.add(offset(index), message(kept));
    }
    let change = table.change();
    let hints = mapping::hints(&kinds, &roles, &heard.kept);
    let config = format!(
        "runners:\n{}  - name: {PRODUCER}\n    type: producer\n    variety: postgres\n    depends_on: [{name}]\n    \
         profile: {PRODUCER}   # the entry of ~/.socket_el/profile.yml that names the database\n{}",
        advice.draft.runner(&advice.remarks),
        hints
    );
    let seconds = listened.time.as_secs_f64().max(1e-3);
    Report {
        uri: shown.uri().to_owned(),
        handshake: HandshakeReport {
            took_ms: millis(listened.handshake.took),
            status: listened.handshake.status,
            tls: listened.handshake.tls.clone(),
            subprotocol: concealed(listened.handshake.subprotocol.as_deref(), heard),
            extensions: concealed(listened.handshake.extensions.as_deref(), heard),
        },
        has_script: !shown.steps().is_empty(),
        subscribed_after_ms: heard.subscribed_after.map(millis),
        lost: match &listened.end {
            TrialEnd::Lost(cause) => Some(heard.secrets().conceal(cause)),
            TrialEnd::Stopped => None,
        },
        listened_s: listened.time.as_secs_f64(),
        messages: heard.data,
        bytes: heard.data_bytes,
        messages_per_s: as_f64(heard.data) / seconds,
        bytes_per_s: as_f64(heard.data_bytes) / seconds,
        sizes: heard.sizes(),
        longest_silence_s: listened.silence.as_secs_f64(),
        control: heard.others,
        not_looked_at: heard.unkept,
        kinds: kinds
            .iter()
            .map(|kind| kind_report(kind, heard, &roles))
            .collect(),
        config,
        variables,
        create_table: change.as_ref().and_then(|change| change.create_table()),
        sql: change.map(|change| change.to_string()),
        unknown: unknown(shown, &kinds, listened),
    }
}

/// Whether the first message of a kind was data, or an answer that nobody waited for.
fn is_data(kind: &Kind, heard: &Heard) -> bool {
    let first = kind.members.first().and_then(|&index| heard.kept.get(index));
    first.is_some_and(|kept| kept.role == Role::Data)
}

/// What the messages are to the consumer with the keys that are suggested.
async fn rehear(draft: &Draft, staged: &[Kind], listened: &Listened) -> Vec<Role> {
    let heard = &listened.heard;
    let advised = advise(draft, staged, heard, listened.silence).draft;
    let payloads = heard.kept.iter().map(|kept| &*kept.payload);
    let again = match advised.trial() {
        Ok(trial) => trial.rehear(payloads).await.ok(),
        Err(_) => None,
    };
    // The keys were read once, so they are read again; if not, what was heard stands.
    again.unwrap_or_else(|| heard.kept.iter().map(|kept| kept.role).collect())
}

fn kind_report(kind: &Kind, heard: &Heard, roles: &[Role]) -> KindReport {
    let mut sample = sample("kind");
    let mut report = KindReport {
        kind: kind.label.to_string(),
        messages: kind.members.len(),
        role: "data",
        smallest: usize::MAX,
        largest: 0,
        example: String::new(),
        columns: Vec::new(),
        dead_letters: 0,
        dead_letter_reason: None,
    };
    for &index in &kind.members {
        let kept = &heard.kept[index];
        report.smallest = report.smallest.min(kept.payload.len());
        report.largest = report.largest.max(kept.payload.len());
        if let Sampled::DeadLetter(reason) = sample.add(offset(index), message(kept)) {
            report.dead_letters += 1;
            report.dead_letter_reason.get_or_insert(reason);
        }
    }
    if let Some(&first) = kind.members.first() {
        report.example = kinds::example(&heard.kept[first].payload);
        report.role = match roles[first] {
            Role::Data => "data",
            Role::Control => "no data: control",
            Role::Answer => "no data: the answer that subscribe waits for",
            Role::Refusal => "no data: a refusal",
        };
    }
    let suggestions = sample.suggestions();
    if let Some(change) = sample.change() {
        report.columns = change
            .columns()
            .into_iter()
            .map(|(key, column_type)| ColumnReport {
                fits: suggestions
                    .iter()
                    .find(|(known, _)| *known == key)
                    .map(|(_, fits)| fits.to_string()),
                key,
                column_type,
            })
            .collect();
    }
    report
}

/// What was not seen, and what nobody can see from here.
fn unknown(shown: &Draft, kinds: &[Kind], listened: &Listened) -> Vec<String> {
    let heard = &listened.heard;
    let mut unknown = Vec::new();
    let silent = heard.data == 0;
    if silent && shown.steps().is_empty() {
        unknown.push(
            "whether it sends anything: many feeds must be told what to send, with --subscribe".to_owned(),
        );
    } else if silent {
        unknown.push("what its messages look like: no data came; listen longer with --seconds".to_owned());
    }
    if !shown.steps().is_empty() && !shown.expects() && heard.answered_after.is_none() {
        let answered = kinds
            .iter()
            .any(|kind| meaning(kind, &heard.kept) == Meaning::Answer);
        if !answered {
            unknown.push(
                "whether what was sent was understood: nothing that looks like an answer came".to_owned(),
            );
        }
    }
    for kind in kinds {
        match meaning(kind, &heard.kept) {
            Meaning::Error => unknown.push(format!("what is wrong: the server sent {}", kind.label)),
            Meaning::Ping => unknown.push(format!(
                "whether it wants an answer to {}: only pings of the protocol are answered by themselves",
                kind.label
            )),
            _ => {}
        }
    }
    if heard.pong_after.is_none() && heard.pings_sent == 0 {
        unknown.push("whether it answers pings".to_owned());
    }
    if !silent {
        unknown.push(format!(
            "what else it sends at other times: this was {:.0} s of it",
            listened.time.as_secs_f64()
        ));
    }
    unknown
}

/// The table that the printed producer has for the printed consumer.
fn sample(stage: &str) -> Sample {
    Sample::new(RouterOptions::single(SCHEMA, stage, stage, Mapping::default()))
}

fn message(kept: &heard::Kept) -> Message<'_> {
    Message {
        payload: &kept.payload,
        received_at: kept.at,
    }
}

fn offset(index: usize) -> Offset {
    Offset::new(index as u64)
}

fn concealed(text: Option<&str>, heard: &Heard) -> Option<String> {
    text.map(|text| heard.secrets().conceal(text))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a rate, to be read")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Prints a report. Who reads it may stop early.
fn print(report: &Report, json: bool) -> Result<(), RunnerError> {
    let text = if json {
        serde_json::to_string(report).map(|text| text + "\n")
    } else {
        Ok(report.to_string())
    };
    let printed = text.map_err(io::Error::other).and_then(|text| {
        let mut stdout = io::stdout();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    });
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(RunnerError::new(ExitReason::Failed, error))
        }
        _ => Ok(()),
    }
}
