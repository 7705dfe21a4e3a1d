//! What an origin's workers do next: folders to list, and the paths that the listings bring.
//!
//! Folders are listed by the workers too, in parallel; the sender sees to it that they run out of neither, and that
//! what waits stays small.

use crossbeam_channel::Receiver;

use super::Run;
use super::workers::Queue;

/// Listings that are under way while there are still paths to look at: enough that these never run out.
const LISTINGS_AHEAD: usize = 2;

/// What a listing brings.
pub struct Listed<J> {
    /// Further listings.
    pub listings: Vec<J>,
    /// Paths to look at.
    pub paths: Vec<J>,
}

impl<J> Default for Listed<J> {
    fn default() -> Listed<J> {
        Listed {
            listings: Vec::new(),
            paths: Vec::new(),
        }
    }
}

/// What is still to be sent. Paths mostly go before listings, so that what waits stays small.
struct Pending<J> {
    waiting: Listed<J>,
    /// Listings that a worker has and has not answered yet.
    listing: usize,
}

impl<J> Pending<J> {
    fn take(&mut self, listed: Listed<J>) {
        self.listing -= 1;
        self.waiting.listings.extend(listed.listings);
        self.waiting.paths.extend(listed.paths);
    }

    /// A listing, if it is a listing's turn.
    fn listing(&mut self) -> Option<J> {
        let is_its_turn = self.waiting.paths.is_empty() || self.listing < LISTINGS_AHEAD;
        let listing = self.waiting.listings.pop_if(|_| is_its_turn)?;
        self.listing += 1;
        Some(listing)
    }
}

/// Sends the listings to begin with and then whatever they bring, until none is under way any more. Each one's outcome comes by
/// `outcomes`.
pub fn feed<J>(run: &Run, queue: &Queue<J>, listings: Vec<J>, outcomes: &Receiver<Listed<J>>) {
    let mut pending = Pending {
        waiting: Listed {
            listings,
            paths: Vec::new(),
        },
        listing: 0,
    };
    loop {
        while let Ok(listed) = outcomes.try_recv() {
            pending.take(listed);
        }
        let goes_on = if let Some(listing) = pending.listing() {
            queue.send_all([listing])
        } else if !pending.waiting.paths.is_empty() {
            queue.send_some(&mut pending.waiting.paths)
        } else if pending.listing > 0 {
            run.scope.receive(outcomes).map(|listed| pending.take(listed)).is_some()
        } else {
            false
        };
        if !goes_on {
            return;
        }
    }
}
