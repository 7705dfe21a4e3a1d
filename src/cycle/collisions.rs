//! Places that several paths lead to: a newcomer is refused, and a delete there takes away an entry and no copy.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::plan::{OriginInfo, Plan, Planner};
use crate::error::Result;
use crate::sync_info::Bucket;

impl Planner<'_> {
    /// Looks at all of the origin's paths: several of them may lead to one place.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub(super) fn settle_collisions(&self, plan: &mut Plan, origin: &OriginInfo) -> Result<()> {
        let mut newcomers: HashMap<String, Vec<Box<str>>> = HashMap::new();
        for write in plan.writes.iter().filter(|write| !write.is_known) {
            newcomers
                .entry(write.place().to_string())
                .or_default()
                .push(write.path.clone());
        }
        let is_newcomer = |place: &str, path: &str| {
            newcomers
                .get(place)
                .is_some_and(|paths| paths.iter().any(|newcomer| **newcomer == *path))
        };
        let deleted: HashSet<&str> = plan.deletes.iter().map(|delete| delete.place.as_str()).collect();
        let mut residents: HashMap<String, Box<str>> = HashMap::new();
        let mut occupied = HashSet::new();
        let all: Vec<usize> = (0..usize::from(self.info.count())).collect();
        origin.look(&all, |_, theirs| {
            occupied.extend(self.taken_by_others(theirs, &deleted));
            let allowed = theirs.iter().filter(|(path, _)| self.settings.filter.allows(path));
            for (path, known) in allowed {
                let place = self.routes.place(path, known.secret_type());
                if deleted.contains(&*place) {
                    occupied.insert(place.to_string());
                }
                if newcomers.contains_key(&*place) && !is_newcomer(&place, path) {
                    residents.insert(place.into_owned(), path.into());
                }
            }
            Ok(())
        })?;
        plan.occupied = occupied;
        plan.refuse_where(|write| {
            let rivals = newcomers.get(write.place()).filter(|_| !write.is_known)?;
            let rival = rivals.iter().find(|rival| **rival != write.path);
            let (other, what) = match (residents.get(write.place()), rival) {
                (Some(resident), _) => (resident, "which is synced there already"),
                (None, Some(rival)) => (rival, "which is as new"),
                (None, None) => return None,
            };
            Some(format!(
                "it leads to {}, as does {other}, {what}; correct `transforms`",
                write.place()
            ))
        });
        Ok(())
    }

    /// Which of `places` hold what other roles copy there.
    fn taken_by_others(&self, theirs: &Bucket, places: &HashSet<&str>) -> Vec<String> {
        let mut taken = Vec::new();
        for (filter, routes) in &self.others {
            let allowed = theirs.iter().filter(|(path, _)| filter.allows(path));
            let led = allowed.map(|(path, known)| routes.place(path, known.secret_type()));
            taken.extend(led.filter(|place| places.contains(&**place)).map(Cow::into_owned));
        }
        taken
    }
}
