//! The local read replica: a read-only Vault beside the applications, which goes on answering when the real one is away.
//!
//! A request is sorted ([`route`](self::route)), whoever sends it must be allowed to ([`access`](self::access)), and what it
//! asks for is what the origin says, or has said ([`source`](self::source), [`LocalReplica`]). Nothing is ever written.

mod access;
mod body;
mod changes;
mod mounts;
mod prefetch;
mod route;
mod serve;
mod source;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use access::{Access, LOOKUP, Need, Verdict};
use changes::{Changed, Changes};
use mounts::Mounts;
use route::{Refusal, Route, route};
use serde_json::{Value, json};
use source::{Question, Said, said};

use crate::error::{Error, Kind, Result, fail};
use crate::http::serve::{Answer, Asked};
use crate::scope::Scope;
use crate::secret::SecretString;
use crate::storage::{Clock, Found, Freshness, LocalReplica};

pub use serve::Serving;

/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// ... and how long the origin may take to say what it is: whoever asks wants to know how the replica is.
const SEAL_LIMIT: Duration = Duration::from_secs(1);
/// A path that no known mount holds may be of a new one: the mounts are asked again, but not more often than this.
const MOUNTS_PAUSE: Duration = Duration::from_secs(10);

/// The replica.
pub struct Replica {
    answers: LocalReplica,
    access: Access,
    changes: Changes,
    clock: Arc<dyn Clock>,
    /// Where to write instead, for messages.
    origin: String,
    namespace: String,
    /// As they were last read, and when.
    mounts: RwLock<Option<(Duration, Arc<Mounts>)>>,
}

/// What is answered, and where it is from.
type Told = Found<Answer>;

impl Replica {
    /// Answers a request, whatever it is.
    fn answer(&self, scope: &Scope, asked: &Asked) -> Answer {
        let scope = scope.within(REQUEST_LIMIT);
        let outcome = match route(asked.method, asked.path, asked.query) {
            Ok(route) => self.told(&scope, asked, route),
            Err(refusal) => return self.refuse(refusal),
        };
        match outcome {
            Ok(told) => {
                let mut answer = told.answer;
                let word = match told.freshness {
                    Freshness::Hit => "hit",
                    Freshness::Miss => "miss",
                    Freshness::Stale => "stale",
                };
                answer.headers.push(("X-Vsync-Cache", word.to_string()));
                answer.headers.push(("Age", told.age.as_secs().to_string()));
                answer
            }
            Err(error) => self.explain(&error),
        }
    }

    /// What was said of this before counts no longer.
    fn note(&self, changed: &Changed) {
        let now = self.clock.now();
        self.changes.note(changed, now);
        self.changes
            .forget_before(now.saturating_sub(self.answers.cache_lifetime));
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        match refusal {
            Refusal::Bad(why) => body::errors(400, &[why]),
            Refusal::Unknown => body::errors(404, &[&self.unknown()]),
            Refusal::ReadOnly => {
                let why = format!(
                    "this is a read-only replica: send what writes to the origin, {}",
                    self.origin
                );
                let mut answer = body::errors(405, &[&why]);
                answer.headers.push(("Allow", "GET, LIST".to_string()));
                answer
            }
        }
    }

    fn unknown(&self) -> String {
        format!(
            "this read replica has nothing but KV secrets: ask the origin, {}",
            self.origin
        )
    }

    /// What an error names is for the log: whoever asked may be anybody.
    fn explain(&self, error: &Error) -> Answer {
        let origin = &self.origin;
        match error.kind() {
            Kind::Denied => {
                log::warn!("replica: its own token may not read what a reader may: {error}");
                body::lacking()
            }
            Kind::Refused | Kind::NotFound | Kind::Protocol | Kind::Conflict => {
                log::warn!("replica: {error}");
                body::errors(
                    502,
                    &[&format!("the origin, {origin}, gives no answer that can be passed on")],
                )
            }
            _ => {
                log::debug!("replica: {error}");
                let why = format!("the origin, {origin}, is away, and nothing is held of this that may still be used");
                body::errors(503, &[&why])
            }
        }
    }

    fn told(&self, scope: &Scope, asked: &Asked, route: Route) -> Result<Told> {
        let own = |body: &Value| Ok(fresh(body::json(200, body)));
        match route {
            Route::Health => own(&self.health(scope)),
            Route::SealStatus => own(&self.seal_status(scope)),
            Route::Leader => own(&leader()),
            _ => self.told_to_reader(scope, asked, route),
        }
    }

    /// What only a reader is told.
    fn told_to_reader(&self, scope: &Scope, asked: &Asked, route: Route) -> Result<Told> {
        let (namespace, token) = match (text_of(asked, "X-Vault-Namespace"), token_of(asked)) {
            (Ok(namespace), Ok(token)) => (namespace, token),
            (Err(why), _) | (_, Err(why)) => return Ok(fresh(body::errors(400, &[why]))),
        };
        if asked.header("X-Vault-Wrap-TTL").is_some() {
            let why = format!("a read replica wraps no answers: ask the origin, {}", self.origin);
            return Ok(fresh(body::errors(400, &[&why])));
        }
        if namespace.is_some_and(|namespace| namespace.trim_matches('/') != self.namespace) {
            return Ok(fresh(body::absent()));
        }
        let Some(token) = token else {
            return Ok(fresh(body::denied()));
        };
        match route {
            Route::LookupSelf => self.said_to(scope, &token, LOOKUP, || Some(lookup_self())),
            Route::MountOf(path) => {
                let describe = || self.mounts(scope, Duration::ZERO).ok()?.describe(&path);
                self.said_to(scope, &token, &format!("sys/internal/ui/mounts/{path}"), describe)
            }
            route => self.read(scope, &token, route),
        }
    }

    fn read(&self, scope: &Scope, token: &SecretString, route: Route) -> Result<Told> {
        let (path, need) = match &route {
            Route::List { path, .. } => (path, Need::List),
            Route::Read { path, .. } => (path, Need::Read),
            _ => return Ok(fresh(body::absent())),
        };
        if path.trim() != path {
            // The origin judges such a path without its blanks.
            return Ok(fresh(body::errors(
                400,
                &["who may read a path that ends with a blank can't be told"],
            )));
        }
        match self.access.may(scope, token, path, need)? {
            Verdict::Allowed => {}
            Verdict::Denied => return Ok(fresh(body::lacking())),
            Verdict::Unknown => return Ok(fresh(body::denied())),
            Verdict::Bound => {
                let why = "a token that is bound to addresses or to a number of uses is none for a read replica: ask the origin";
                return Ok(fresh(body::errors(403, &[why])));
            }
        }
        match self.sort(scope, route)? {
            Some(Route::Read { path, version }) => {
                let found = self.ask(scope, &Question::Read(&path, version))?;
                Ok(found.map(|answer| answer.map_or_else(body::absent, |(status, body)| body::raw(status, body))))
            }
            Some(Route::List { path, after, limit }) => {
                let found = self.ask(scope, &Question::List(&path))?;
                Ok(found.map(|answer| answer.map_or_else(body::absent, |(_, names)| listing(&names, &after, limit))))
            }
            _ => Ok(fresh(body::errors(404, &[&self.unknown()]))),
        }
    }

    /// What is to be read for a route, if it leads into a KV mount.
    fn sort(&self, scope: &Scope, route: Route) -> Result<Option<Route>> {
        let sorted = self.mounts(scope, Duration::ZERO)?.sort(route.clone());
        if sorted.is_some() {
            return Ok(sorted);
        }
        let recently = self.clock.now().saturating_sub(MOUNTS_PAUSE);
        Ok(self.mounts(scope, recently)?.sort(route))
    }

    /// The mounts as they were after `since`.
    fn mounts(&self, scope: &Scope, since: Duration) -> Result<Arc<Mounts>> {
        let since = since.max(self.clock.now().saturating_sub(self.answers.cache_lifetime));
        let known = self.mounts.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, mounts)) = known.filter(|(at, _)| *at >= since) {
            return Ok(mounts);
        }
        let found = self.answers.look(scope, &Question::Mounts.key(), since)?;
        let body = found.answer.map(|entry| said(&entry.value)).transpose()?;
        let Some(mounts) = body.and_then(|(_, body)| Mounts::parse(&body)) else {
            return fail(Kind::Protocol, "the origin does not say which mounts it has");
        };
        let mounts = Arc::new(mounts);
        // Stale ones are looked at again with the next request: the origin may be back.
        if found.freshness != Freshness::Stale {
            let at = self.clock.now().saturating_sub(found.age);
            *self.mounts.write().unwrap_or_else(PoisonError::into_inner) = Some((at, mounts.clone()));
        }
        Ok(mounts)
    }

    /// What the origin says, or has said: status and body; `None` for what is not there.
    fn ask(&self, scope: &Scope, question: &Question) -> Result<Found<Option<Said>>> {
        self.ask_since(scope, question, Duration::ZERO)
    }

    /// The same, not before `since`.
    fn ask_since(&self, scope: &Scope, question: &Question, since: Duration) -> Result<Found<Option<Said>>> {
        let since = since.max(self.changes.of(question));
        let key = question.key();
        let found = self.answers.look(scope, &key, since)?;
        if found.answer.is_none() && matches!(question, Question::Read(_, 1..)) {
            // There are more numbers than there is room for.
            self.answers.forget(scope, &key)?;
        }
        let Found { answer, freshness, age } = found;
        let answer = match (answer, question) {
            (Some(entry), Question::List(_)) => Some((200, entry.value)),
            (Some(entry), _) => Some(said(&entry.value)?),
            (None, _) => None,
        };
        Ok(Found { answer, freshness, age })
    }

    /// What the origin says to a token at `path`; where no origin decides, what the replica itself says to one that it knows.
    fn said_to(
        &self,
        scope: &Scope,
        token: &SecretString,
        path: &str,
        own: impl FnOnce() -> Option<Value>,
    ) -> Result<Told> {
        match &self.access {
            Access::Origin(judge) => {
                let found = judge.ask_as(scope, token, path)?;
                Ok(found.map(|(status, body)| body::raw(status, body)))
            }
            Access::Tokens(_) => Ok(fresh(match self.access.may(scope, token, path, Need::Read)? {
                Verdict::Allowed => own().map_or_else(body::lacking, |data| body::raw(200, body::data(&data))),
                _ => body::denied(),
            })),
        }
    }

    /// What the origin was when it was last asked.
    fn seal(&self, scope: &Scope) -> Value {
        let scope = scope.within(SEAL_LIMIT);
        let found = self.answers.look(&scope, &Question::Seal.key(), Duration::ZERO);
        let body = found.ok().and_then(|found| said(&found.answer?.value).ok());
        body.and_then(|(_, body)| serde_json::from_slice(&body).ok())
            .unwrap_or_default()
    }

    /// The replica's own health: it answers, so it is well.
    fn health(&self, scope: &Scope) -> Value {
        let seal = self.seal(scope);
        json!({
            "initialized": true,
            "sealed": false,
            "standby": false,
            "performance_standby": false,
            "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled",
            "server_time_utc": self.clock.now().as_secs(),
            "version": text(&seal, "version"),
            "cluster_name": text(&seal, "cluster_name"),
            "cluster_id": text(&seal, "cluster_id"),
        })
    }

    fn seal_status(&self, scope: &Scope) -> Value {
        let seal = self.seal(scope);
        json!({
            "type": "shamir",
            "initialized": true,
            "sealed": false,
            "t": 1,
            "n": 1,
            "progress": 0,
            "nonce": "",
            "version": text(&seal, "version"),
            "build_date": text(&seal, "build_date"),
            "migration": false,
            "cluster_name": text(&seal, "cluster_name"),
            "cluster_id": text(&seal, "cluster_id"),
            "recovery_seal": false,
            "storage_type": "vsync",
        })
    }
}

/// An answer that is made here and now.
fn fresh(answer: Answer) -> Told {
    Found {
        answer,
        freshness: Freshness::Miss,
        age: Duration::ZERO,
    }
}

fn text(object: &Value, name: &str) -> String {
    object[name].as_str().unwrap_or_default().to_string()
}

fn leader() -> Value {
    json!({
        "ha_enabled": false,
        "is_self": false,
        "active_time": "0001-01-01T00:00:00Z",
        "leader_address": "",
        "leader_cluster_address": "",
        "performance_standby": false,
        "performance_standby_last_remote_wal": 0,
    })
}

/// What is told of a token that is on the list.
fn lookup_self() -> Value {
    json!({
        "accessor": "",
        "creation_time": 0,
        "creation_ttl": 0,
        "display_name": "replica",
        "entity_id": "",
        "expire_time": null,
        "explicit_max_ttl": 0,
        "id": "",
        "meta": null,
        "num_uses": 0,
        "orphan": true,
        "path": "",
        "policies": [],
        "renewable": false,
        "ttl": 0,
        "type": "service",
    })
}

/// The token of a request, from either of the headers that Vault takes it from; or why that can't be told.
fn token_of(asked: &Asked) -> std::result::Result<Option<SecretString>, &'static str> {
    let own = text_of(asked, "X-Vault-Token")?.filter(|token| !token.is_empty());
    let bearer = text_of(asked, "Authorization")?.and_then(|header| header.strip_prefix("Bearer "));
    let token = own.or(bearer).filter(|token| !token.is_empty());
    Ok(token.map(SecretString::new))
}

/// A header that may be there once at most: what comes twice, whoever is in between may read otherwise.
fn text_of<'a>(asked: &Asked<'a>, name: &'static str) -> std::result::Result<Option<&'a str>, &'static str> {
    if asked.is_repeated(name) {
        return Err("a header that must be there once is there more than once");
    }
    match asked.header(name).map(std::str::from_utf8) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err("a header is not UTF-8"),
    }
}

/// Names after `after`, at most `limit` of them (0: all), as Vault lists them.
fn listing(names: &[u8], after: &str, limit: usize) -> Answer {
    let names = String::from_utf8_lossy(names);
    let page = names.split('\n').filter(|name| after.is_empty() || *name > after);
    let page: Vec<&str> = page.take(if limit == 0 { usize::MAX } else { limit }).collect();
    match page.is_empty() {
        true => body::absent(),
        false => body::raw(200, body::data(&json!({ "keys": page }))),
    }
}
