//! Whether a backend is worth asking, for whoever has an old answer that would do.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ASKING;
use crate::error::Kind;

/// For how long a backend that was away, or a question that took too long, is taken to be so; doubled each time up to the
/// longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_SLOW: Duration = Duration::from_secs(30);
/// More questions that take too long are not told apart.
const MOST_SLOW: usize = 10_000;

/// What is known of a backend.
#[derive(Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Default)]
struct State {
    away: Option<(Kind, Pause)>,
    /// Questions that had no answer in time: were they asked as soon as any other, the backend would seem to be away for ever.
    slow: HashMap<String, Pause>,
}

/// Until when something is not tried again.
#[derive(Clone, Copy)]
struct Pause {
    until: Duration,
    length: Duration,
}

impl Pause {
    /// The one that follows on `before`.
    fn after(before: Option<Pause>, longest: Duration, now: Duration) -> Pause {
        let length = before.map_or(FIRST_PAUSE, |before| longest.min(2 * before.length));
        Pause {
            until: now + length,
            length,
        }
    }
}

impl Health {
    /// Why `question` need not be asked now. If it is to be asked although the backend was away, others still need not until
    /// there is an answer.
    pub(super) fn is_away_for(&self, question: &str, now: Duration) -> Option<Kind> {
        let mut state = self.state();
        if state.slow.get(question).is_some_and(|slow| now < slow.until) {
            return Some(Kind::Timeout);
        }
        match &mut state.away {
            Some((kind, pause)) if now < pause.until => Some(*kind),
            Some((_, pause)) => {
                pause.until = now + ASKING;
                None
            }
            None => None,
        }
    }

    /// What asking came to: an answer, or a failure of this kind.
    pub(super) fn note(&self, question: &str, failure: Option<Kind>, now: Duration) {
        let mut state = self.state();
        let before = state.away.map(|(_, pause)| pause);
        state.away = match failure {
            Some(kind @ (Kind::Unreachable | Kind::Sealed | Kind::Timeout)) => {
                Some((kind, Pause::after(before, LONGEST_PAUSE, now)))
            }
            // It answers, if not this.
            _ => None,
        };
        if failure != Some(Kind::Timeout) {
            state.slow.remove(question);
            return;
        }
        if state.slow.len() >= MOST_SLOW {
            state.slow.clear();
        }
        let slow = Pause::after(state.slow.get(question).copied(), LONGEST_SLOW, now);
        state.slow.insert(question.to_string(), slow);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn one_asks_whether_it_is_back_and_the_others_need_not() {
        let health = Health::default();
        let mut now = LONG;
        assert_eq!(health.is_away_for("a", now), None);
        health.note("a", Some(Kind::Unreachable), now);
        assert_eq!(health.is_away_for("b", now), Some(Kind::Unreachable));
        now += FIRST_PAUSE;
        assert_eq!(health.is_away_for("b", now), None, "this one asks");
        assert_eq!(health.is_away_for("a", now), Some(Kind::Unreachable));
        health.note("b", Some(Kind::Unreachable), now);
        assert_eq!(
            health.is_away_for("a", now + FIRST_PAUSE),
            Some(Kind::Unreachable),
            "the pause grows"
        );
        health.note("b", None, now);
        assert_eq!(health.is_away_for("a", now), None);
    }

    /// Others are asked all the time, and it does not hold them up.
    #[test]
    fn a_question_that_takes_too_long_is_asked_less_and_less() {
        let health = Health::default();
        let (mut now, mut asked) = (LONG, 0);
        for _ in 0..600 {
            if health.is_away_for("slow", now).is_none() {
                health.note("slow", Some(Kind::Timeout), now);
                asked += 1;
            }
            now += FIRST_PAUSE;
            assert_eq!(health.is_away_for("fast", now), None);
            health.note("fast", None, now);
        }
        assert!((10..=16).contains(&asked), "{asked} times in 5 minutes");
        health.note("slow", None, now);
        assert_eq!(health.is_away_for("slow", now), None);
    }

    #[test]
    fn a_refusal_is_no_absence() {
        let health = Health::default();
        health.note("a", Some(Kind::Unreachable), LONG);
        for kind in [Kind::Denied, Kind::Refused, Kind::Limited, Kind::Protocol] {
            health.note("a", Some(kind), LONG);
            assert_eq!(health.is_away_for("a", LONG), None, "{kind:?}");
        }
    }
}
