//! What has to be done so that a destination reflects the origin, found from sync info alone.
//!
//! Both buckets are sorted, so one walk along the two finds every difference. Nothing is decided here about
//! whether a task may be carried out: deletes are confirmed, and held back, by whoever works on them.

use std::fmt;

use serde::Serialize;

use super::bucket::Bucket;
use super::entries::Entry;
use super::insight::Insight;
use super::known::as_text;

/// What is to be done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// The destination doesn't know the path.
    Add,
    /// The destination knows another state of the secret.
    Update,
    /// The origin doesn't know the path any more.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Operation::Add => "add",
            Operation::Update => "update",
            Operation::Delete => "delete",
        })
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The origin's path.
    pub path: Box<str>,
    /// What is to be done.
    pub operation: Operation,
    /// The origin's insight, without orphans, for an add or update; the destination's for a delete.
    pub insight: Insight,
}

impl Task {
    fn new(operation: Operation, entry: Entry) -> Task {
        Task {
            path: as_text(entry.path).into(),
            operation,
            insight: entry.known.to_insight(),
        }
    }
}

/// The tasks that make `destination` know what `origin` knows, in bytewise order of the paths.
pub fn compare(origin: &Bucket, destination: &Bucket) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut copies = destination.entries().peekable();
    for theirs in origin.entries() {
        while let Some(gone) = copies.next_if(|copy| copy.path < theirs.path) {
            tasks.push(Task::new(Operation::Delete, gone));
        }
        match copies.next_if(|copy| copy.path == theirs.path) {
            None => tasks.push(Task::new(Operation::Add, theirs)),
            Some(ours) if !theirs.known.same_as(ours.known) => tasks.push(Task::new(Operation::Update, theirs)),
            Some(_) => {}
        }
    }
    tasks.extend(copies.map(|gone| Task::new(Operation::Delete, gone)));
    tasks
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::super::samples;
    use super::super::{Orphans, SecretType};
    use super::*;

    fn bucket(entries: &[(&str, u64, &str)]) -> Bucket {
        let insight = |version, time: &str| Insight::new(version, time, SecretType::KvV2);
        entries
            .iter()
            .map(|&(path, version, time)| (path, insight(version, time)))
            .collect()
    }

    #[test]
    fn differences() {
        use Operation::{Add, Delete, Update};
        type Entries<'a> = &'a [(&'a str, u64, &'a str)];
        type Tasks<'a> = &'a [(&'a str, Operation, u64)];
        let table: [(Entries, Entries, Tasks); 8] = [
            (&[], &[], &[]),
            (&[("a", 1, "t")], &[("a", 1, "t")], &[]),
            (&[("a", 1, "t")], &[], &[("a", Add, 1)]),
            (&[], &[("a", 1, "t")], &[("a", Delete, 1)]),
            (&[("a", 2, "t")], &[("a", 1, "t")], &[("a", Update, 2)]),
            // The origin is the source of truth, a restored backup included.
            (&[("a", 1, "t")], &[("a", 2, "u")], &[("a", Update, 1)]),
            // Metadata deleted and as many versions written again: only the time tells.
            (&[("a", 1, "u")], &[("a", 1, "t")], &[("a", Update, 1)]),
            (
                &[("a", 1, "t"), ("c", 3, "t"), ("e", 5, "t"), ("é", 7, "t")],
                &[
                    ("b", 2, "t"),
                    ("c", 9, "t"),
                    ("d", 4, "t"),
                    ("e", 5, "t"),
                    ("f", 6, "t"),
                ],
                &[
                    ("a", Add, 1),
                    ("b", Delete, 2),
                    ("c", Update, 3),
                    ("d", Delete, 4),
                    ("f", Delete, 6),
                    ("é", Add, 7),
                ],
            ),
        ];
        for (origin, destination, expected) in table {
            let tasks = compare(&bucket(origin), &bucket(destination));
            let found: Vec<_> = tasks
                .iter()
                .map(|task| (&*task.path, task.operation, task.insight.version))
                .collect();
            assert_eq!(found, expected, "{origin:?} {destination:?}");
        }
    }

    #[test]
    fn operations_have_one_name() {
        for operation in [Operation::Add, Operation::Update, Operation::Delete] {
            assert_eq!(serde_json::to_string(&operation).unwrap(), format!("\"{operation}\""));
        }
    }

    fn apply(destination: &mut Bucket, tasks: Vec<Task>) {
        for task in tasks {
            match task.operation {
                Operation::Delete => destination.remove(&task.path),
                Operation::Add | Operation::Update => destination.insert(&task.path, &task.insight),
            };
        }
    }

    fn without_orphans(bucket: &Bucket) -> Bucket {
        let plain = |insight: Insight| Insight {
            orphans: Orphans::default(),
            ..insight
        };
        let entries = bucket.iter().map(|(path, known)| (path, plain(known.to_insight())));
        entries.collect()
    }

    /// Few paths and few insights, so that all kinds of differences are met.
    fn crowded() -> impl Strategy<Value = Bucket> {
        btree_map("[a-dé]{1,2}", samples::common_insight(), 0..20).prop_map(|entries| entries.into_iter().collect())
    }

    proptest! {
        #[test]
        fn applying_the_tasks_makes_both_equal(origin in crowded(), destination in crowded()) {
            let mut destination = destination;
            let tasks = compare(&origin, &destination);
            prop_assert!(tasks.is_sorted_by(|a, b| a.path < b.path));
            apply(&mut destination, tasks);
            prop_assert_eq!(destination, origin);
        }

        #[test]
        fn orphans_are_no_difference(origin in samples::bucket(), destination in samples::bucket()) {
            let plain = without_orphans(&origin);
            prop_assert_eq!(compare(&plain, &origin), vec![]);
            let mut destination = destination;
            let tasks = compare(&plain, &destination);
            apply(&mut destination, tasks);
            prop_assert_eq!(without_orphans(&destination), plain);
        }

        #[test]
        fn nothing_differs_from_itself(bucket in samples::bucket()) {
            prop_assert_eq!(compare(&bucket, &bucket), vec![]);
        }
    }
}
