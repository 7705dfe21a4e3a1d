//! All versions of a secret, under their numbers.
//!
//! A version's number is its place in the order of writing, so version N can be written only onto version N-1, and
//! never again. What the origin can't show, a deleted or destroyed version, is written as an empty placeholder and
//! then deleted or destroyed; its value is never read. What is to be withdrawn goes before anything is written. Each
//! step leads on from whatever an earlier run has left, so a run that is cut off anywhere is finished by the next.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::metadata::{Metadata, Settings, State};
use super::store::{expiring, write};
use super::{Kv2, Read};
use crate::engine::{Copies, Expected, Remarks, Secret, Stored, is_same};
use crate::error::{Error, Kind, Result, fail};
use crate::vault::{Found, Session, data};

/// What is written in place of a version that the origin can't show.
const PLACEHOLDER: &str = "{}";

/// A version as the origin has it.
pub struct Past {
    number: u64,
    content: Content,
}

enum Content {
    /// It can be read: its data, and when it expires.
    Live(Box<RawValue>, Box<str>),
    Deleted,
    Destroyed,
}

impl Past {
    fn state(&self) -> State {
        match self.content {
            Content::Live(..) => State::Live,
            Content::Deleted => State::Deleted,
            Content::Destroyed => State::Destroyed,
        }
    }
}

/// Whether each of the versions `own` is among those of a copy under its number, as it is, and the last is the last there.
pub fn is_kept(own: &[Past], copy: &[Past]) -> bool {
    let is_same = |own: &Past, copy: &Past| match (&own.content, &copy.content) {
        (Content::Live(data, _), Content::Live(copied, _)) => is_same(data, copied),
        _ => own.state() == copy.state(),
    };
    let is_there = |own: &Past| copy.iter().any(|copy| copy.number == own.number && is_same(own, copy));
    let last = |past: &[Past]| past.last().map(|past| past.number);
    last(own) == last(copy) && own.iter().all(is_there)
}

/// Reads the versions that `metadata` lists, up to the current one, which is `latest`, and without a gap.
pub fn read(session: Session, path: &str, metadata: &Metadata, latest: &Secret) -> Result<Vec<Past>> {
    let mut past = Vec::new();
    for (&number, &state) in metadata.versions.range(..=metadata.current).rev() {
        if number + past.len() as u64 != metadata.current {
            break;
        }
        let content = match state {
            State::Deleted => Content::Deleted,
            State::Destroyed => Content::Destroyed,
            State::Live if number == metadata.current => {
                let expiry = latest.beside.as_ref().map(|beside| beside.expiry.clone());
                Content::Live(latest.data.clone(), expiry.unwrap_or_default())
            }
            State::Live => match read_one(session, path, number)? {
                Some(content) => content,
                // Made room for a newer one at this moment.
                None => break,
            },
        };
        past.push(Past { number, content });
    }
    past.reverse();
    Ok(past)
}

/// One version; `None` if it isn't kept any more.
fn read_one(session: Session, path: &str, number: u64) -> Result<Option<Content>> {
    let (reply, is_live) = match session.at_version(number).read(path)? {
        Found::Live(reply) => (reply, true),
        Found::Deleted(reply) => (reply, false),
        Found::Absent => return Ok(None),
    };
    let read: Read = data(&reply)?;
    if read.metadata.version != number {
        return fail(Kind::Protocol, "another version was answered than was asked for");
    }
    Ok(Some(match (is_live, read.metadata.destroyed) {
        (true, _) => Content::Live(read.data.to_owned(), read.metadata.deletion_time.into()),
        (false, true) => Content::Destroyed,
        (false, false) => Content::Deleted,
    }))
}

/// What came of it.
pub enum Outcome {
    /// Versions have the origin's numbers.
    Settled(Stored),
    /// They can't, for this reason; nothing was written.
    Impossible(String),
}

/// What is to be done so that the versions at the destination are those of the origin.
#[derive(Debug, Default, PartialEq, Eq)]
struct Steps {
    /// To compare: both have them.
    compare: Vec<u64>,
    /// To delete softly.
    delete: Vec<u64>,
    /// To destroy.
    destroy: Vec<u64>,
    /// To take a delete back of.
    undelete: Vec<u64>,
    /// Deleted although they were to be destroyed: they may not be copies.
    spared: Vec<u64>,
    /// Withdrawn at the origin, and what is there may not be a copy either.
    doubtful: Vec<u64>,
    /// To write.
    write: Vec<u64>,
    /// No longer kept there, though the origin keeps them.
    dropped: Vec<u64>,
}

impl Steps {
    /// The steps from `there` to `here`; `copies` says which versions there are surely copies.
    ///
    /// # Errors
    /// Why there are none.
    fn between(
        here: &BTreeMap<u64, State>,
        (there, current): (&BTreeMap<u64, State>, u64),
        copies: Copies,
    ) -> std::result::Result<Steps, String> {
        let (Some((&first, _)), Some((&last, _))) = (here.first_key_value(), here.last_key_value()) else {
            return Err("the origin changes while it is read".to_string());
        };
        if current > last {
            return Err(format!(
                "there is a version {current} already, the origin's latest is {last}"
            ));
        }
        if first > current + 1 {
            let lost = first - 1;
            return Err(format!(
                "the origin no longer has the versions {} to {lost}",
                current + 1
            ));
        }
        let oldest = there.first_key_value().map_or(0, |(&oldest, _)| oldest);
        let mut steps = Steps::default();
        for (&number, &state) in here {
            if number > current {
                steps.write.push(number);
                continue;
            }
            let is_copy = copies.hold(number, current);
            match (state, there.get(&number)) {
                (_, None) if number < oldest => {
                    steps.dropped.push(number);
                    continue;
                }
                (_, None) => return Err(format!("version {number} is no longer kept there")),
                (State::Live, Some(State::Live)) => steps.compare.push(number),
                (State::Live, Some(State::Deleted)) => steps.undelete.push(number),
                (State::Live, Some(State::Destroyed)) => return Err(format!("version {number} is destroyed there")),
                (State::Destroyed, Some(State::Live | State::Deleted)) if is_copy => steps.destroy.push(number),
                (State::Destroyed, Some(State::Live)) => steps.spared.push(number),
                (State::Deleted, Some(State::Live)) => steps.delete.push(number),
                (State::Deleted | State::Destroyed, Some(State::Deleted | State::Destroyed)) => {}
            }
            let is_withdrawn = state != State::Live && there.get(&number) != Some(&State::Destroyed);
            if is_withdrawn && !is_copy {
                steps.doubtful.push(number);
            }
        }
        Ok(steps)
    }
}

impl Steps {
    /// Leaves all versions alone but these.
    fn withdraw_only(&mut self, numbers: &[u64]) {
        self.delete.retain(|number| numbers.contains(number));
        self.destroy.retain(|number| numbers.contains(number));
        self.spared.clear();
    }

    /// Whether there is more to do than to compare.
    fn change_anything(&self) -> bool {
        let changes = [&self.delete, &self.destroy, &self.undelete, &self.spared, &self.write];
        changes.iter().any(|numbers| !numbers.is_empty())
    }
}

/// Up to which version those at a destination are not to be taken for copies, where they can't have the origin's
/// numbers and `current` was the latest: 0 if the latest numbers of both ends tell that by themselves.
pub fn seeming(past: &[Past], current: u64) -> u64 {
    let latest = past.last().map_or(0, |latest| latest.number);
    match latest.checked_sub(current) {
        // One more has been written, or two.
        Some(0..=2) => latest,
        _ => 0,
    }
}

/// One secret's place at the destination.
pub struct Place<'a> {
    /// The engine there.
    pub engine: &'a Kv2,
    /// The server.
    pub session: Session<'a>,
    /// The path of the data.
    pub path: &'a str,
    /// Whether versions that are there may be deleted and destroyed.
    pub withdraws: bool,
}

impl Place<'_> {
    /// Makes the versions be those of the origin, if that is possible.
    ///
    /// # Errors
    /// As those of [`Engine::store`](crate::engine::Engine::store).
    pub fn settle(&self, past: &[Past], settings: &Settings, there: &Metadata, expected: Expected) -> Result<Outcome> {
        let copies = match expected {
            Expected::Copied(copies) => copies,
            Expected::Absent | Expected::Unknown => Copies::default(),
        };
        let here = past.iter().map(|past| (past.number, past.state())).collect();
        let mut steps = match Steps::between(&here, (&there.versions, there.current), copies) {
            Ok(steps) => steps,
            Err(why) => return Ok(Outcome::Impossible(why)),
        };
        let mut empty = Vec::new();
        if let Some(why) = self.compare(past, &steps.compare, &mut empty)? {
            return Ok(Outcome::Impossible(why));
        }
        let placeholders = self.recognise(&mut steps, there)?;
        if !self.withdraws {
            steps.withdraw_only(&placeholders);
        }
        self.mark("delete", &[&steps.delete[..], &steps.spared].concat())?;
        self.mark("destroy", &steps.destroy)?;
        if let Some(why) = self.undelete(past, &steps.undelete, &mut empty)? {
            return Ok(Outcome::Impossible(why));
        }
        self.mark("delete", &empty)?;
        let mut lines = self.write(past, &steps.write, settings, there)?;
        if !empty.is_empty() {
            let cause = "since it was deleted at the origin when it was copied, and its data is not there";
            lines.push(format!("versions {empty:?} stay deleted at {}, {cause}", self.path));
        }
        let dropped = match steps.dropped.first() {
            None if steps.write.len() > 1 => self.find_dropped(past)?,
            first => first.copied(),
        };
        lines.extend(dropped.map(|number| {
            format!(
                "fewer versions are kept at {} than at the origin (version {number} is dropped already); raise its mount's \
                 `max_versions`",
                self.path
            )
        }));
        let mut kept = steps.doubtful.clone();
        kept.retain(|number| self.withdraws && here.get(number) == Some(&State::Destroyed));
        if !kept.is_empty() {
            let why = "that were destroyed at the origin are only deleted at";
            let cause = "since it can't be told whether they are copies; destroy them by hand";
            lines.push(format!("versions {kept:?} {why} {}, {cause}", self.path));
        }
        let foreign = steps.doubtful.last().copied().unwrap_or(0);
        let is_new = steps.change_anything() || *settings != there.settings;
        Ok(Outcome::Settled(match (lines.is_empty() && foreign == 0, is_new) {
            (false, _) => Stored::Remarked(Remarks { lines, foreign }),
            (true, true) => Stored::Written,
            (true, false) => Stored::Adopted,
        }))
    }

    /// Why the versions that both have are not the same, if they aren't. Older ones that are only placeholders are no
    /// reason, and are added to `empty`.
    fn compare(&self, past: &[Past], numbers: &[u64], empty: &mut Vec<u64>) -> Result<Option<String>> {
        let latest = past.last().map(|latest| latest.number);
        for past in past.iter().filter(|past| numbers.contains(&past.number)) {
            let Content::Live(wanted, expiry) = &past.content else {
                continue;
            };
            let number = past.number;
            match read_one(self.session, self.path, number)? {
                Some(Content::Live(found, until)) if is_same(&found, wanted) => {
                    if !super::metadata::outlives(&until, expiry) {
                        return Ok(Some(format!("version {number} there expires before the origin's")));
                    }
                }
                Some(Content::Live(found, _)) if found.get() == PLACEHOLDER && Some(number) != latest => {
                    empty.push(number);
                }
                Some(Content::Live(..)) => return Ok(Some(format!("version {number} there holds something else"))),
                _ => return Err(changed(number)),
            }
        }
        Ok(None)
    }

    /// What a run that was cut off has left in place of a withdrawn version is known by its being empty: those.
    fn recognise(&self, steps: &mut Steps, there: &Metadata) -> Result<Vec<u64>> {
        let mut placeholders = Vec::new();
        for &number in &steps.doubtful {
            if there.versions.get(&number) != Some(&State::Live) {
                continue;
            }
            match read_one(self.session, self.path, number)? {
                Some(Content::Live(found, _)) if found.get() == PLACEHOLDER => placeholders.push(number),
                Some(Content::Live(..)) => {}
                _ => return Err(changed(number)),
            }
        }
        steps.doubtful.retain(|number| !placeholders.contains(number));
        let (ours, spared) = std::mem::take(&mut steps.spared)
            .into_iter()
            .partition(|number| placeholders.contains(number));
        steps.destroy.extend::<Vec<u64>>(ours);
        steps.spared = spared;
        Ok(placeholders)
    }

    /// Takes deletes back. What comes to light and is not the origin's is deleted again at once.
    fn undelete(&self, past: &[Past], numbers: &[u64], empty: &mut Vec<u64>) -> Result<Option<String>> {
        self.mark("undelete", numbers)?;
        let why = self.compare(past, numbers, empty);
        if !matches!(why, Ok(None)) {
            self.mark("delete", numbers)?;
        }
        why
    }

    /// Deletes, undeletes or destroys versions.
    fn mark(&self, what: &str, numbers: &[u64]) -> Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let body = serde_json::json!({ "versions": numbers }).to_string();
        let path = self.engine.sibling(what, self.path);
        match self.session.write(&path, body.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(format!("{what} versions {numbers:?} by {path}"))),
        }
    }

    /// Writes the versions that lack, each onto the one before, and settles the settings around that.
    fn write(&self, past: &[Past], numbers: &[u64], settings: &Settings, there: &Metadata) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        let lacking: Vec<&Past> = past.iter().filter(|past| numbers.contains(&past.number)).collect();
        let stays = |past: &&Past| matches!(&past.content, Content::Live(_, expiry) if expiry.is_empty());
        let meanwhile = match lacking.iter().any(stays) {
            true => settings.without_expiry(),
            false => settings.clone(),
        };
        self.engine.set(self.session, self.path, &meanwhile, there)?;
        for past in &lacking {
            let written = match &past.content {
                Content::Live(data, _) => write(self.session, self.path, data, past.number - 1)?,
                Content::Deleted | Content::Destroyed => self.write_placeholder(past.number)?,
            };
            if written.version != past.number {
                return Err(changed(past.number));
            }
            if stays(past) && !written.deletion_time.is_empty() && remarks.is_empty() {
                remarks.push(expiring(self.path));
            }
        }
        let of = |state| {
            let those = lacking.iter().filter(|past| past.state() == state);
            those.map(|past| past.number).collect::<Vec<_>>()
        };
        self.mark("delete", &of(State::Deleted))?;
        self.mark("destroy", &of(State::Destroyed))?;
        if meanwhile != *settings {
            self.engine.reset(self.session, self.path, settings)?;
        }
        Ok(remarks)
    }

    fn write_placeholder(&self, number: u64) -> Result<super::store::Written> {
        let unmade = |_| Error::new(Kind::Panic, "a placeholder can't be made");
        let placeholder = RawValue::from_string(PLACEHOLDER.to_string()).map_err(unmade)?;
        write(self.session, self.path, &placeholder, number - 1)
    }

    /// A destination that keeps fewer versions than the origin has dropped some of them again.
    fn find_dropped(&self, past: &[Past]) -> Result<Option<u64>> {
        let now = self.engine.metadata(self.session, self.path)?;
        let now = now.unwrap_or_else(Metadata::of_nothing);
        let mut numbers = past.iter().map(|past| past.number);
        Ok(numbers.find(|number| !now.versions.contains_key(number)))
    }
}

fn changed(number: u64) -> Error {
    Error::new(
        Kind::Conflict,
        format!("somebody else changed version {number} at the same moment"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn states(text: &str, first: u64) -> BTreeMap<u64, State> {
        let state = |char| match char {
            'l' => State::Live,
            'd' => State::Deleted,
            _ => State::Destroyed,
        };
        (first..).zip(text.chars().map(state)).collect()
    }

    fn between(here: &str, there: &str, copies: Copies) -> std::result::Result<Steps, String> {
        let there = states(there, 1);
        Steps::between(&states(here, 1), (&there, there.len() as u64), copies)
    }

    fn copies(foreign: u64, latest: u64) -> Copies {
        Copies { foreign, latest }
    }

    #[test]
    fn steps() {
        let numbers = |steps: Steps| {
            [
                steps.compare,
                steps.delete,
                steps.destroy,
                steps.undelete,
                steps.spared,
                steps.write,
            ]
        };
        let none = Vec::new;
        for (here, there, copied, wanted) in [
            ("lll", "", 0, [none(), none(), none(), none(), none(), vec![1, 2, 3]]),
            ("lll", "ll", 2, [vec![1, 2], none(), none(), none(), none(), vec![3]]),
            ("lll", "lll", 0, [vec![1, 2, 3], none(), none(), none(), none(), none()]),
            ("ddl", "ld", 0, [none(), vec![1], none(), none(), none(), vec![3]]),
            ("xxl", "ldl", 3, [vec![3], none(), vec![1, 2], none(), none(), none()]),
            ("xxl", "ldl", 2, [vec![3], none(), none(), none(), vec![1], none()]),
            ("xxl", "ldl", 0, [vec![3], none(), none(), none(), vec![1], none()]),
            ("ll", "ld", 2, [vec![1], none(), none(), vec![2], none(), none()]),
        ] {
            let found = between(here, there, copies(0, copied)).map(numbers);
            assert_eq!(found, Ok(wanted), "{here} {there} {copied}");
        }
    }

    #[test]
    fn only_what_is_surely_a_copy_is_destroyed() {
        for (here, there, copies, destroyed, doubtful) in [
            ("xdxl", "lll", copies(0, 3), vec![1, 3], vec![]),
            ("xdxl", "ldd", copies(0, 3), vec![1, 3], vec![]),
            // Up to a version somebody else's, or of other numbers, or nothing is known.
            ("xdxl", "lll", copies(2, 3), vec![3], vec![1, 2]),
            ("xdxl", "lll", copies(0, 2), vec![], vec![1, 2, 3]),
            ("xdxl", "ldx", copies(0, 4), vec![], vec![1, 2]),
            ("xdxl", "xxx", copies(0, 0), vec![], vec![]),
        ] {
            let steps = between(here, there, copies).unwrap();
            assert_eq!(
                (steps.destroy, steps.doubtful),
                (destroyed, doubtful),
                "{here} {there} {copies:?}"
            );
        }
        let past = |number| Past {
            number,
            content: Content::Deleted,
        };
        for (current, foreign) in [(5, 0), (4, 4), (3, 4), (2, 4), (1, 0)] {
            assert_eq!(seeming(&[past(3), past(4)], current), foreign, "{current}");
        }
    }

    #[test]
    fn what_can_not_be_reproduced() {
        for (here, first, there, why) in [
            ("l", 1, "ll", "a version 2 already"),
            ("ll", 5, "ll", "no longer has the versions 3 to 4"),
            ("ll", 2, "", "no longer has the versions 1 to 1"),
            ("lll", 1, "xl", "version 1 is destroyed there"),
            ("", 1, "", "changes while it is read"),
        ] {
            let there = states(there, 1);
            let found = Steps::between(&states(here, first), (&there, there.len() as u64), copies(0, 0)).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
        let steps = Steps::between(&states("llllx", 1), (&states("ld", 3), 4), copies(0, 4)).unwrap();
        assert_eq!((steps.dropped, steps.write), (vec![1, 2], vec![5]));
        let gap = BTreeMap::from([(1, State::Live), (3, State::Live)]);
        let found = Steps::between(&states("lll", 1), (&gap, 3), copies(0, 3)).unwrap_err();
        assert!(found.contains("version 2 is no longer kept there"), "{found}");
        // Of what the destination has beyond the origin's first version nothing is asked.
        assert!(Steps::between(&states("l", 3), (&states("ll", 1), 2), copies(0, 0)).is_ok());
    }

    proptest! {
        /// Carried out on what was there, the steps lead to what is here, and no version is both shown and withdrawn.
        #[test]
        fn the_steps_lead_to_the_origins_states(
            here in vec("[ldx]", 1..8), there in vec("[ldx]", 0..8), foreign in 0..9_u64, latest in 0..9_u64,
        ) {
            let copies = copies(foreign, latest);
            let (here, there) = (here.concat(), there.concat());
            let wanted = states(&here, 1);
            let mut found = states(&there, 1);
            let Ok(steps) = between(&here, &there, copies) else { return Ok(()) };
            for (numbers, state) in [
                (&steps.delete, State::Deleted), (&steps.spared, State::Deleted), (&steps.destroy, State::Destroyed),
                (&steps.undelete, State::Live),
            ] {
                for number in numbers {
                    found.insert(*number, state);
                }
            }
            for number in &steps.write {
                prop_assert_eq!(found.keys().last().copied().unwrap_or(0) + 1, *number);
                found.insert(*number, wanted[number]);
            }
            for (number, state) in &wanted {
                let is_shown = found[number] == State::Live;
                prop_assert_eq!(is_shown, *state == State::Live);
            }
            let current = there.len() as u64;
            prop_assert!(steps.destroy.iter().all(|number| copies.hold(*number, current)));
            let is_sure = |number: &u64| !steps.doubtful.contains(number);
            prop_assert!(steps.destroy.iter().all(is_sure) && !steps.spared.iter().any(is_sure));
        }
    }
}
