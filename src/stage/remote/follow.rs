//! Keeps the mirror of a remote stage up: follows the engine's stream of changes, and compares every new life of the engine
//! with what was read from the one before.

use serde::Deserialize as _;
use tokio::time::sleep;
use uuid::Uuid;

use super::client::{Answer, ClientError};
use super::mirror::lock;
use super::stage::{Patience, RETRY_INITIAL, RETRY_MAX, RemoteStage};
use crate::backoff::Backoff;
use crate::stage::StageError;
use crate::stage::path::Glance;

/// The longest line of the stream: bounds, cursors, and the gaps of a stage that has seen very many.
const MAX_LINE: usize = 16 << 20;

/// Follows until there is no use in it any more.
pub(super) async fn follow(stage: &RemoteStage) {
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
    let mut told = false;
    loop {
        let outcome = follow_once(stage, &mut backoff, &mut told).await;
        let error = match outcome {
            Ok(()) => ClientError::NoEngine,
            Err(error) => error,
        };
        stage.mirror.down();
        let directory = stage.client.directory();
        if matches!(stage.patience, Patience::None) || is_final(&error) {
            stage.mirror.end(error.into_stage_error(directory));
            return;
        }
        if !told {
            tracing::warn!(stage = stage.name, %error, "the engine that has the stage open does not answer; waiting for it");
            told = true;
        }
        sleep(backoff.next_delay()).await;
    }
}

/// Whether waiting would change nothing.
fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::Forbidden(_) | ClientError::OtherProtocol(_) | ClientError::NotFound(_) => true,
        ClientError::Stage(error) => !matches!(error, StageError::Failed { .. } | StageError::Closed),
        ClientError::NoEngine
        | ClientError::OtherLife
        | ClientError::Lost(_)
        | ClientError::Broken(_)
        | ClientError::TimedOut => false,
    }
}

/// One connection, until it ends.
async fn follow_once(stage: &RemoteStage, backoff: &mut Backoff, told: &mut bool) -> Result<(), ClientError> {
    let identity = stage.client.identity().await?;
    if identity.id != stage.path_id {
        return Err(replaced(
            stage,
            format!("its id was {} and is {} now", stage.path_id, identity.id),
        ));
    }
    let life = identity.life;
    let route = format!("{}/watch", stage.route());
    let answer = stage.client.get(&route, Some(life)).await?;
    let mut lines = Lines::of(answer);
    let Some(first) = lines.next().await? else {
        return Ok(());
    };
    compare(stage, life, first).await?;
    backoff.reset();
    if std::mem::take(told) {
        tracing::info!(stage = stage.name, pid = identity.pid, "the engine answers again");
    }
    while let Some(glance) = lines.next().await? {
        stage.mirror.take(glance);
    }
    Ok(())
}

/// Begins with a life of the engine. One that is new must know all that was read from the last one as its past.
async fn compare(stage: &RemoteStage, life: Uuid, glance: Glance) -> Result<(), ClientError> {
    if stage.mirror.last_life() != life {
        let (read, past) = (stage.mirror.bounds().head, glance.bounds.given_from);
        if read > past {
            return Err(replaced(
                stage,
                format!(
                    "stage {} was read up to offset {read}, and its past ends at {past} now",
                    stage.name
                ),
            ));
        }
        let began = lock(&stage.began).clone();
        for producer in began {
            stage.put_begun(life, &producer).await?;
        }
    }
    stage.mirror.up(glance, life);
    Ok(())
}

fn replaced(stage: &RemoteStage, reason: String) -> ClientError {
    ClientError::Stage(StageError::Replaced {
        path: stage.client.directory().display().to_string(),
        reason,
    })
}

/// The lines of a stream of JSON.
struct Lines {
    answer: Answer,
    gathered: Vec<u8>,
}

impl Lines {
    fn of(answer: Answer) -> Self {
        Self {
            answer,
            gathered: Vec::new(),
        }
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Result<Option<Glance>, ClientError> {
        loop {
            if let Some(end) = self.gathered.iter().position(|byte| *byte == b'\n') {
                let mut line = serde_json::Deserializer::from_slice(&self.gathered[..end]);
                let glance =
                    Glance::deserialize(&mut line).map_err(|error| ClientError::Broken(error.to_string()))?;
                self.gathered.drain(..=end);
                return Ok(Some(glance));
            }
            if self.gathered.len() > MAX_LINE {
                return Err(ClientError::Broken("a line without end".to_owned()));
            }
            match self.answer.piece().await? {
                Some(piece) => self.gathered.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}
