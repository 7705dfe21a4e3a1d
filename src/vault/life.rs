//! What is known of a token's life: its end, as exactly as servers tell it, and whether renewals move it.

use std::time::{Duration, Instant};

/// The least pause after a renewal that failed, and how exactly a server tells a token's life.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Why a token ends although it can be renewed: as far as is known from the last renewal.
const AT_MAXIMUM: &str = "it has reached its maximum lifetime";
const RENEWAL_REFUSED: &str = "the server refuses to renew it";

/// What is known of the token's life.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// At this moment, or after it, the server knew the token.
    pub(super) seen_alive: Option<Instant>,
    pub(super) renewable: bool,
    pub(super) is_root: bool,
    /// Why the last renewal was in vain, if it was.
    pub(super) end: Option<&'static str>,
    /// When the answer came that gave the token this life.
    pub(super) told: Option<Instant>,
    /// The earliest moment of its end. `None`: not known yet, or it never expires.
    pub(super) expires: Option<Instant>,
    /// The latest moment of its end: servers tell whole seconds, counted from some moment before the answer came.
    latest: Option<Instant>,
    /// When half of what was left is over.
    due: Option<Instant>,
    /// How many warnings of its end have been given.
    pub(super) warned: usize,
}

impl Life {
    /// As the server said in the answer to what it was `asked` at that moment; without a time, it never expires.
    pub fn new(asked: Instant, left: Option<Duration>, renewable: bool) -> Life {
        Life::told(asked, Instant::now(), left, renewable)
    }

    fn told(asked: Instant, told: Instant, left: Option<Duration>, renewable: bool) -> Life {
        Life {
            seen_alive: Some(asked),
            renewable,
            told: Some(told),
            expires: left.and_then(|left| asked.checked_add(left)),
            latest: left.and_then(|left| told.checked_add(left.saturating_add(PAUSE))),
            due: left.and_then(|left| asked.checked_add(left / 2)),
            ..Life::default()
        }
    }

    /// The same life, of a token that may do everything.
    pub fn with_root(self, is_root: bool) -> Life {
        Life { is_root, ..self }
    }

    /// The life after a renewal.
    pub(super) fn renewed(&self, renewal: Life) -> Life {
        Life {
            end: self.end_after(&renewal),
            is_root: self.is_root,
            warned: self.warned,
            ..renewal
        }
    }

    /// Why the token ends in spite of this renewal: because its end is where it was. An end that comes sooner is none: then
    /// the server gives less at a time than it did, but may give that again and again.
    fn end_after(&self, renewal: &Life) -> Option<&'static str> {
        let (asked, earliest) = (renewal.seen_alive?, renewal.expires?);
        if earliest < asked + PAUSE {
            return Some(AT_MAXIMUM);
        }
        if self.told.is_some_and(|told| asked < told + PAUSE) {
            // Too soon after the last one to tell an end that moves from one that doesn't.
            return self.end;
        }
        let is_later = Some(earliest) > self.latest;
        // A server may count a maximum from the full second before the token was made.
        let is_sooner = renewal.latest.map(|latest| latest + PAUSE) < self.expires;
        (!is_later && !is_sooner).then_some(AT_MAXIMUM)
    }

    /// The life after the server has refused a renewal.
    pub(super) fn refused(&mut self) {
        self.end = Some(RENEWAL_REFUSED);
        self.put_off();
    }

    /// Half of what is left now has to pass before the next renewal.
    pub(super) fn put_off(&mut self) {
        let pause = (self.left().unwrap_or_default() / 2).max(PAUSE);
        self.due = self.expires.and(Instant::now().checked_add(pause));
    }

    /// What a look-up found, of a token whose earlier life is known. However often it is looked up, it is renewed in time.
    pub(super) fn looked_up(&self, found: Life) -> Life {
        let is_prolonged = found.expires > self.latest;
        if is_prolonged {
            return Life {
                warned: self.warned,
                ..found
            };
        }
        Life {
            end: self.end,
            told: self.told,
            due: found.due.and(self.due),
            warned: self.warned,
            ..found
        }
    }

    pub(super) fn left(&self) -> Option<Duration> {
        let end = self.expires?;
        Some(end.saturating_duration_since(Instant::now()))
    }

    /// How long it is until half of what was left is over.
    pub(super) fn due(&self) -> Option<Duration> {
        Some(self.due?.saturating_duration_since(Instant::now()))
    }

    pub(super) fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(seconds: u64) -> Life {
        Life::new(Instant::now(), Some(Duration::from_secs(seconds)), true)
    }

    /// What is known after renewals: each asked so many milliseconds after the first life was told, answered a little
    /// later, with so many seconds.
    fn after(first: u64, renewals: &[(u64, u64)]) -> Life {
        let start = Instant::now();
        let told = |(at, left): (u64, u64)| {
            let asked = start + Duration::from_millis(at);
            let left = Duration::from_secs(left);
            Life::told(asked, asked + Duration::from_millis(20), Some(left), true)
        };
        let renewals = renewals.iter().map(|renewal| told(*renewal));
        renewals.fold(told((0, first)), |before, next| before.renewed(next))
    }

    #[test]
    fn a_token_is_at_its_maximum_if_a_renewal_moves_its_end_no_further() {
        // As a server answers that caps what it gives (FACTS.md section 8).
        for (first, renewals) in [
            (60, &[(30_000, 30)][..]),
            (60, &[(30_000, 29), (45_000, 14)]),
            (60, &[(30_000, 60), (60_000, 40), (80_000, 20)]),
            (4, &[(2_000, 1)]),
            (3, &[(1_500, 1)]),
            (1, &[(500, 0)]),
        ] {
            assert_eq!(after(first, renewals).end, Some(AT_MAXIMUM), "{first} {renewals:?}");
        }
        for (first, renewals) in [
            (60, &[(30_000, 60), (60_000, 59), (90_000, 60)][..]),
            (60, &[(30_000, 600)]),
            // The maximum comes nearer, but the end was moved.
            (60, &[(30_000, 60), (60_000, 40)]),
            // The period was lowered.
            (60, &[(30_000, 8)]),
            (60, &[(30_000, 8), (30_050, 8), (34_000, 8)]),
            // The maximum was raised.
            (60, &[(30_000, 30), (45_000, 60)]),
            // A second one at once, whose end is where the first one put it.
            (8, &[(4_000, 8), (4_100, 8)]),
            (2, &[(1_000, 2), (2_000, 2)]),
        ] {
            assert_eq!(after(first, renewals).end, None, "{first} {renewals:?}");
        }
    }

    #[test]
    fn a_refused_renewal_is_tried_again_when_half_of_the_rest_is_over() {
        let mut life = life(60);
        life.refused();
        assert_eq!(life.end, Some(RENEWAL_REFUSED));
        let due = life.due().unwrap().as_secs();
        assert!((28..=30).contains(&due), "{due}");
        assert_eq!(
            life.renewed(after(60, &[])).end,
            Some(RENEWAL_REFUSED),
            "too soon to tell"
        );
        life.told = life.told.and_then(|told| told.checked_sub(Duration::from_secs(9)));
        life.latest = life
            .latest
            .and_then(|latest| latest.checked_sub(Duration::from_secs(9)));
        assert_eq!(life.renewed(after(60, &[])).end, None);
    }

    #[test]
    fn a_token_that_is_looked_up_again_and_again_is_renewed_in_time() {
        let asked = Instant::now().checked_sub(Duration::from_secs(40)).unwrap();
        let first = Life::told(asked, asked, Some(Duration::from_secs(60)), true);
        assert!(first.is_due());
        assert!(first.looked_up(life(20)).is_due());
        assert!(!first.looked_up(life(60)).is_due(), "somebody else has renewed it");
    }

    #[test]
    fn it_is_due_at_half_of_what_remained() {
        assert!(!life(60).is_due());
        let ago = Instant::now().checked_sub(Duration::from_secs(31)).unwrap();
        assert!(Life::new(ago, Some(Duration::from_secs(60)), true).is_due());
        assert!(!Life::new(ago, None, false).is_due(), "it never expires");
    }
}
