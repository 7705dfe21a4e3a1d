//! How an origin's cycle finds out what is there: folders are listed and paths looked at by all workers.
//!
//! Where the server's listings carry metadata, one request a folder takes the place of one a secret. Whether they do is found
//! out by asking. What comes of it is never less than what a plain listing says: an answer that shows nothing is held against
//! one, since a server (or what stands before it) may say so of every path that it does not know.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::unbounded;

use super::listing::{Listed, feed};
use super::previous::Previous;
use super::report::Tally;
use super::workers::{self, Queue};
use super::{Run, reach};
use crate::config::{Listing, OriginSettings};
use crate::engine::{DataPath, Page, Presence, Survey};
use crate::error::{Error, Level, Result};
use crate::sync_info::SyncInfo;
use crate::vault::Vault;

/// How many names are asked for at first: more than most folders have.
const FIRST_PAGE: usize = 1000;
/// Into so many parts a larger folder is divided, if they are not too small or too large for that: the server looks at all
/// names of the folder for each of them.
const PARTS: usize = 24;
/// The least and the most names of such a part.
const PART: std::ops::RangeInclusive<usize> = 1000..=20_000;

/// Data paths whose server has no listings with metadata, or not for this token; kept from cycle to cycle, so that it is
/// asked, and told, once.
#[derive(Default)]
pub struct Surveyed(Mutex<BTreeSet<String>>);

impl Surveyed {
    fn key(data_path: &DataPath) -> String {
        format!("{} {}", data_path.configured, data_path.mount.uuid)
    }

    fn is_plain(&self, data_path: &DataPath) -> bool {
        let plain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plain.contains(&Surveyed::key(data_path))
    }

    fn set_plain(&self, data_path: &DataPath, why: &str) {
        let mut plain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if plain.insert(Surveyed::key(data_path)) {
            log::info!(
                "data path {}: no listings with metadata ({why}); each secret's metadata is read by itself",
                data_path.configured
            );
        }
    }
}

/// What a worker does. Data paths go by their number.
enum Job {
    /// List a folder.
    List(usize, String),
    /// Survey part of a folder.
    Part(usize, Arc<Part>),
    /// Find out about a path.
    Look(usize, String),
}

/// Part of a large folder.
struct Part {
    folder: Arc<str>,
    /// The names behind this one ...
    after: String,
    /// ... up to this one. What comes behind the last part is the next cycle's.
    until: String,
    /// How many there were a moment ago.
    names: usize,
}

/// One cycle's work.
pub struct Collection<'a> {
    /// The cycle.
    pub run: &'a Run<'a>,
    /// The origin.
    pub vault: &'a Vault,
    /// Its settings.
    pub settings: &'a OriginSettings,
    /// Where to look.
    pub data_paths: &'a [DataPath],
    /// What was known before.
    pub previous: &'a Previous,
    /// Where it is put.
    pub info: &'a SyncInfo,
    /// Where there are no listings with metadata.
    pub surveyed: &'a Surveyed,
}

impl Collection<'_> {
    /// Lists every folder and looks at every path. A listing that fails ends the cycle.
    pub fn collect(&self) {
        let (found, incoming) = unbounded();
        let folder = |(number, data_path): (usize, &DataPath)| Job::List(number, data_path.folder.clone());
        let folders = self.data_paths.iter().enumerate().map(folder).collect();
        let feed = |queue: &Queue<Job>| feed(self.run, queue, folders, &incoming);
        // Nobody takes what was found only if the cycle has ended.
        workers::run(self.run, self.settings.num_workers, feed, |job| match job {
            Job::List(number, folder) => _ = found.send(self.list(number, &folder)),
            Job::Part(number, part) => _ = found.send(self.survey_part(number, &part)),
            Job::Look(number, path) => self.look(&self.data_paths[number], &path),
        });
    }

    fn list(&self, number: usize, folder: &str) -> Listed<Job> {
        let data_path = &self.data_paths[number];
        let is_plain = self.settings.listing == Listing::Plain || self.surveyed.is_plain(data_path);
        if is_plain {
            return self.list_plain(number, folder, None);
        }
        let page = Page {
            after: "",
            limit: FIRST_PAGE,
        };
        match data_path.engine.survey(self.vault.within(self.run.scope), folder, page) {
            Ok(None) => self.list_plain(number, folder, None),
            Ok(Some(survey)) if survey.names == 0 => self.list_plain(number, folder, Some("they show nothing")),
            Ok(Some(survey)) => {
                let parts = match survey.names >= FIRST_PAGE {
                    true => self.parts(number, folder, &survey.last),
                    false => Vec::new(),
                };
                let mut listed = self.take(number, folder, survey, |_| true);
                listed.listings.extend(parts);
                listed
            }
            Err(error) => self.list_instead(number, folder, error),
        }
    }

    /// After a survey that failed: the plain listing, unless the error is everybody's problem.
    fn list_instead(&self, number: usize, folder: &str, error: Error) -> Listed<Job> {
        if reach(error.kind()) > Level::Warn {
            self.run.end(error);
            return Listed::default();
        }
        self.list_plain(number, folder, Some(&error.to_string()))
    }

    /// What is in the folder by a plain listing. If a survey did `not` show it, for that reason, and it is the data path's own
    /// folder, there are no surveys of the data path.
    fn list_plain(&self, number: usize, folder: &str, not: Option<&str>) -> Listed<Job> {
        let data_path = &self.data_paths[number];
        let names = self.names(number, folder);
        if let Some(why) = not.filter(|_| folder == data_path.folder && !names.is_empty()) {
            self.surveyed.set_plain(data_path, why);
        }
        self.look_into(number, folder, names)
    }

    /// All names in a folder, by a plain listing; if that fails, it ends the cycle.
    fn names(&self, number: usize, folder: &str) -> Vec<String> {
        let names = self.data_paths[number]
            .engine
            .list(self.vault.within(self.run.scope), folder);
        names.unwrap_or_else(|error| {
            self.run.end(error);
            Vec::new()
        })
    }

    /// What is to be done where nothing but names is known.
    fn look_into(&self, number: usize, folder: &str, names: Vec<String>) -> Listed<Job> {
        let mut listed = Listed::default();
        for name in names {
            if name.ends_with('/') {
                listed.listings.push(Job::List(number, format!("{folder}{name}")));
            } else {
                self.look_later(number, folder, &name, &mut listed);
            }
        }
        listed
    }

    /// The parts of a folder that is too large for the first page, which ended with `after`. Names are a small part of what
    /// a survey says, so all are asked for at once to divide them.
    fn parts(&self, number: usize, folder: &str, after: &str) -> Vec<Job> {
        let mut names = self.names(number, folder);
        names.retain(|name| &**name > after);
        names.sort();
        let size = names.len().div_ceil(PARTS).clamp(*PART.start(), *PART.end());
        let folder: Arc<str> = folder.into();
        let mut after = after.to_string();
        let mut parts: Vec<Part> = Vec::new();
        for chunk in names.chunks(size) {
            let until = chunk.last().cloned().unwrap_or_default();
            parts.push(Part {
                folder: folder.clone(),
                after: std::mem::replace(&mut after, until.clone()),
                until,
                names: chunk.len(),
            });
        }
        parts
            .into_iter()
            .map(|part| Job::Part(number, Arc::new(part)))
            .collect()
    }

    /// Surveys a part of a folder, whatever has come or gone in it meanwhile.
    fn survey_part(&self, number: usize, part: &Part) -> Listed<Job> {
        let data_path = &self.data_paths[number];
        let mut all = Listed::default();
        let mut after = part.after.clone();
        // A page may be shorter than that and not the last: of names that a policy hides nothing is seen, but they count.
        while after < part.until {
            let page = Page {
                after: &after,
                limit: part.names,
            };
            let session = self.vault.within(self.run.scope);
            let survey = match data_path.engine.survey(session, &part.folder, page) {
                Err(error) if reach(error.kind()) > Level::Warn => {
                    self.run.end(error);
                    return all;
                }
                Ok(Some(survey)) if survey.names > 0 => survey,
                _ => {
                    all.extend(self.list_part(number, part, &after));
                    return all;
                }
            };
            after = survey.last.to_string();
            all.extend(self.take(number, &part.folder, survey, |name| *name <= *part.until));
        }
        all
    }

    /// What is in the part behind `after`, by a plain listing: there is no survey of it, or one that shows nothing.
    fn list_part(&self, number: usize, part: &Part, after: &str) -> Listed<Job> {
        let mut names = self.names(number, &part.folder);
        names.retain(|name| **name > *after && *name <= part.until);
        self.look_into(number, &part.folder, names)
    }

    /// Puts what a survey tells of the names that are wanted; what it does not tell of them is still to be done.
    fn take(&self, number: usize, folder: &str, survey: Survey, is_ours: impl Fn(&str) -> bool) -> Listed<Job> {
        let data_path = &self.data_paths[number];
        let mut listed = Listed::default();
        for (name, presence) in survey.secrets.into_iter().filter(|(name, _)| is_ours(name)) {
            let path = data_path.path_of(folder, &name);
            if self.settings.filter.allows(&path) {
                self.put(&path, Ok(presence));
            }
        }
        for name in survey.untold.iter().filter(|name| is_ours(name)) {
            self.look_later(number, folder, name, &mut listed);
        }
        let folders = survey.folders.iter().filter(|name| is_ours(name));
        listed
            .listings
            .extend(folders.map(|name| Job::List(number, format!("{folder}{name}"))));
        listed
    }

    fn look_later(&self, number: usize, folder: &str, name: &str, listed: &mut Listed<Job>) {
        let path = self.data_paths[number].path_of(folder, name);
        if self.settings.filter.allows(&path) {
            listed.paths.push(Job::Look(number, path));
        }
    }

    fn look(&self, data_path: &DataPath, path: &str) {
        self.put(path, data_path.engine.insight(self.vault.within(self.run.scope), path));
    }

    fn put(&self, path: &str, found: Result<Presence>) {
        let insight = match found {
            Ok(Presence::Present(insight)) => Ok(Some(self.previous.dated(path, insight))),
            Ok(Presence::Deleted) => Ok(None),
            // It was in the listing a moment ago: the next cycle decides.
            Ok(Presence::Absent) => self.previous.insight(path),
            Err(error) => {
                self.run.failed(path, error);
                let kept = self.previous.insight(path);
                kept.inspect(|kept| Tally::add(&self.run.tally.stuck, u64::from(kept.is_some())))
            }
        };
        let put = insight.and_then(|insight| insight.map_or(Ok(()), |insight| self.info.put(path, insight)));
        if let Err(error) = put {
            self.run.end(error.context(path));
        }
    }
}
