//! Answers what is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::request::{Asked, Refusal, check_life, parse};
use super::{HEAD_TIME, Place, Served, streams};
use crate::stage::SharedStage;
use crate::stage::path::{Glance, StagePath as _};
use crate::stage::remote::{Ack, Forgotten, MAX_BODY_BYTES, RECORDS_TYPE, RequestErrorKind, encode_records};
use crate::stage::report::{Delivery, Report};

/// The body of an answer: whole, or a stream.
pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Answers one request, whatever it is.
pub(super) async fn answer(served: &Served, place: &Place, request: Request<Incoming>) -> Response<Body> {
    let mut response = match route(served, place, request).await {
        Ok(response) => response,
        Err(refusal) => with_status(refusal.status, &refusal.body),
    };
    if let Ok(life) = HeaderValue::try_from(format!("\"{}\"", served.identity.life)) {
        response.headers_mut().insert(ETAG, life);
    }
    response
}

async fn route(
    served: &Served,
    place: &Place,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let uri = request.uri();
    let asked = parse(request.method(), uri.path(), uri.query().unwrap_or_default())?;
    check_life(request.headers(), served.identity.life)?;
    match asked {
        Asked::Identity => Ok(json(&served.identity)),
        Asked::Status => Ok(json(&status(served))),
        Asked::Stages => Ok(json(&served.path.summary().await?)),
        Asked::Stage(stage) => {
            let summary = served.path.summary().await?;
            let found = summary.stage(&stage).ok_or_else(|| Refusal::no_stage(&stage))?;
            Ok(json(found))
        }
        Asked::ForgetStage(stage) => {
            let messages = served.path.forget_stage(&stage).await?;
            let messages = messages.ok_or_else(|| Refusal::no_stage(&stage))?;
            Ok(json(&Forgotten { messages }))
        }
        Asked::Batches(stage, params) => {
            find(served, &stage)?;
            Ok(json(&served.path.batches(&stage, params.into()).await?))
        }
        Asked::Records(stage, params) => {
            find(served, &stage)?;
            let page = served.path.records(&stage, params.from, params.limit()).await?;
            let glance = served
                .path
                .glance(&stage)
                .map(|glance| Glance { gaps: None, ..glance });
            let frames = encode_records(&page, glance);
            Ok(whole(StatusCode::OK, RECORDS_TYPE, frames))
        }
        Asked::Outages(stage, params) => {
            let stage = find(served, &stage)?;
            let to = params.to.unwrap_or_else(|| stage.bounds().head);
            Ok(json(&stage.outages(params.place(), to).await?))
        }
        Asked::Messages(stage, params) => {
            let stage = find(served, &stage)?;
            Ok(stream(streams::messages(stage, params, served.stop.clone())))
        }
        Asked::Watch(stage) => {
            find(served, &stage)?;
            let watching = Arc::clone(&served.watchers).try_acquire_owned();
            let watching = watching.map_err(|_| Refusal::too_many_watchers())?;
            let path = Arc::clone(&served.path);
            let lines = streams::watch(path, stage.clone(), watching, served.stop.clone());
            let lines = lines.ok_or_else(|| Refusal::no_stage(&stage))?;
            place.give_back();
            Ok(stream(lines))
        }
        Asked::Ack(name, producer) => {
            let stage = find(served, &name)?;
            let Ack { next, durable } = read_body(request, "{\"next\": <offset>}").await?;
            if next > stage.bounds().reserved {
                return Err(Refusal::request(
                    RequestErrorKind::BadRequest,
                    format!("stage {name} has never given the offset {next}"),
                ));
            }
            if durable {
                stage.pin(&producer, next).await?;
            } else {
                stage.ack(&producer, next).await?;
            }
            glance(served, &name)
        }
        Asked::Begun(name, producer) => {
            find(served, &name)?.begun(&producer).await?;
            glance(served, &name)
        }
        Asked::Report(name, producer) => {
            let stage = find(served, &name)?;
            let report: Report = read_body(request, "a report of a delivery").await?;
            stage.report(&producer, &report).await;
            Ok(json(&()))
        }
        Asked::ForgetCursor(stage, producer) => {
            find(served, &stage)?;
            if served.path.forget_producer(&stage, &producer).await? {
                return glance(served, &stage);
            }
            Err(Refusal::request(
                RequestErrorKind::NotFound,
                format!("stage {stage} has no cursor of {producer}"),
            ))
        }
    }
}

#[derive(Serialize)]
struct EngineStatus<'a> {
    engine: &'a crate::stage::remote::Identity,
    /// Of this stage path: by stage and producer, of this process or another.
    deliveries: BTreeMap<String, BTreeMap<String, Delivery>>,
    #[serde(flatten)]
    runners: super::Status,
}

fn status(served: &Served) -> EngineStatus<'_> {
    let stages = served.path.overview().stages.into_iter();
    let deliveries = stages.map(|stage| {
        let heard = stage.producers.into_iter();
        let heard = heard.filter_map(|(name, producer)| Some((name, producer.delivery?)));
        (stage.name, heard.collect())
    });
    EngineStatus {
        engine: &served.identity,
        deliveries: deliveries.collect(),
        runners: (served.status)(),
    }
}

fn find(served: &Served, stage: &str) -> Result<SharedStage, Refusal> {
    served.path.stage(stage).ok_or_else(|| Refusal::no_stage(stage))
}

/// What the stage is after a change.
fn glance(served: &Served, stage: &str) -> Result<Response<Body>, Refusal> {
    let glance = served.path.glance(stage);
    let glance = glance.ok_or(crate::stage::StageError::Closed)?;
    Ok(json(&Glance { gaps: None, ..glance }))
}

async fn read_body<T: DeserializeOwned>(request: Request<Incoming>, what: &str) -> Result<T, Refusal> {
    let bad = |error: String| Refusal::request(RequestErrorKind::BadRequest, error);
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES);
    let body = timeout(HEAD_TIME, body.collect())
        .await
        .map_err(|_| bad("the body did not come in time".to_owned()))?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let error = format!("the body is longer than {MAX_BODY_BYTES} bytes");
            return Refusal::request(RequestErrorKind::TooLong, error);
        }
        bad(error.to_string())
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| bad(format!("the body must be {what}: {error}")))
}

fn json(value: &impl Serialize) -> Response<Body> {
    with_status(StatusCode::OK, value)
}

fn with_status(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            whole(status, "application/json", text)
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON; please report this");
            whole(StatusCode::INTERNAL_SERVER_ERROR, "application/json", Vec::new())
        }
    }
}

fn whole(status: StatusCode, content: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Full::from(body).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

fn stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
