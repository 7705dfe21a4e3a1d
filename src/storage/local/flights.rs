//! Questions on their way to the backend: whoever wants the answer to one that is being asked waits for that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Kind;

/// What came of a question: an error, too, as often as it is needed.
pub(super) type Outcome = Result<Option<Vec<u8>>, (Kind, String)>;

/// Nothing is ever sent: the channel's closing says that the answer is there.
pub(super) enum Never {}

/// All that are on their way, by question.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<String, Flight>>);

/// A question on its way, for all who want its answer.
#[derive(Clone)]
pub(super) struct Flight {
    /// When it was asked.
    pub(super) began: Duration,
    /// Closed when there is an outcome, or nobody who asks any more.
    pub(super) landed: Receiver<Never>,
    pub(super) outcome: Arc<OnceLock<Outcome>>,
}

/// The one who asks; when he is gone, whatever became of him, others may.
pub(super) struct Pilot<'a> {
    flights: &'a Flights,
    question: &'a str,
    pub(super) outcome: Arc<OnceLock<Outcome>>,
    _landing: Sender<Never>,
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        self.flights.all().remove(self.question);
    }
}

impl Flights {
    /// The question's flight; with the pilot's seat, if there was none yet, which then begins `now`.
    pub(super) fn board<'a>(&'a self, question: &'a str, now: Duration) -> (Flight, Option<Pilot<'a>>) {
        let mut all = self.all();
        if let Some(flight) = all.get(question) {
            return (flight.clone(), None);
        }
        let (landing, landed) = bounded(0);
        let flight = Flight {
            began: now,
            landed,
            outcome: Arc::default(),
        };
        all.insert(question.to_string(), flight.clone());
        let pilot = Pilot {
            flights: self,
            question,
            outcome: flight.outcome.clone(),
            _landing: landing,
        };
        (flight, Some(pilot))
    }

    /// Whether none is on its way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
