//! What is made of the change feed: small cycles of the origin, beside the full ones.
//!
//! Whatever comes while one runs waits for the next one, so that a burst of changes makes a few cycles. While there is no info
//! in memory to change, hints wait, as many as there is room for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::feed::{Changes, Feed};
use super::listener::{News, Voice};
use super::trigger::Wake;
use crate::config::FeedSettings;
use crate::cycle::{Live, Origin};
use crate::error::Error;
use crate::http::backoff;
use crate::scope::Scope;

/// The longest pause between two attempts to listen.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Listens to the audit device until the scope is done. An address that can't be had, since another process has it, say, is told
/// once and tried again: the ticks find what is changed meanwhile.
pub fn listen(settings: &FeedSettings, origin: &Origin, scope: &Scope, changes: &Changes, failed: &dyn Fn(Error)) {
    let mut failures = 0;
    while scope.done().is_none() {
        match Feed::bind(settings, Some(origin.vault().namespace())) {
            Ok(feed) => {
                log::info!("origin: change feed: listens at {}", settings.listen);
                feed.run(scope, changes);
            }
            Err(error) => {
                if failures == 0 {
                    failed(error);
                }
                failures += 1;
                scope.sleep(backoff(failures, LONGEST_PAUSE));
            }
        }
    }
}

/// Runs a small cycle whenever something waits in `changes`, until the scope is done. What it finds is handed over before it is
/// saved. After one that failed the next full one need not wait for its tick: `wake` starts it.
pub fn follow(
    origin: &Origin,
    changes: &Changes,
    voice: &Voice,
    (scope, wake): (&Scope, &Wake),
    hand_over: &(dyn Fn(&Live) + Sync),
) {
    while scope.receive(changes.signals()).is_some() {
        if voice.member.waits.load(Ordering::Acquire) {
            // It is another vsync that looks; should this one take over, it begins with a full cycle.
            changes.take();
            continue;
        }
        let report = origin.small_cycle(scope, &|| changes.take(), hand_over);
        let Some(report) = report.filter(|_| scope.done().is_none()) else {
            continue;
        };
        if report.ended_by.is_some() {
            wake.stir();
        }
        voice.tell(News::Cycle(Box::new(report)));
    }
}
