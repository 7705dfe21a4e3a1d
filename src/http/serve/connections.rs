//! The connections that are open: so many and no more, and all ended at the stop.
//!
//! Where there are too many, the one that has waited longest for its client gives way: to turn new ones away instead would
//! let whoever opens many and says nothing keep all others out, and a client whose kept-alive connection is closed opens
//! another without a word. Those whose request is being worked on never give way; only if all are, a new one gets 503.

use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::socket::Stream;

/// In place of a time: it waits for nothing of its client's.
const AT_WORK: u64 = u64::MAX;

/// All that are open.
pub(super) struct Connections {
    open: Mutex<Vec<Arc<Connection>>>,
    /// Told when there are none.
    is_empty: Condvar,
    is_shut: AtomicBool,
    most: usize,
    began: Instant,
}

/// One of them.
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// Since when it waits for its client, in microseconds since the beginning of all.
    waits_since: AtomicU64,
}

/// What became of a new connection.
pub(super) enum Added {
    /// It is open until it is removed.
    Open(Arc<Connection>),
    /// There are too many already, and all are at work.
    Full(Stream),
    /// No more are wanted.
    Shut,
}

impl Connections {
    /// None yet; `most` at once.
    pub(super) fn new(most: usize) -> Connections {
        Connections {
            open: Mutex::default(),
            is_empty: Condvar::new(),
            is_shut: AtomicBool::new(false),
            most,
            began: Instant::now(),
        }
    }

    /// Takes a new one, if there is room or one that gives way.
    pub(super) fn add(&self, stream: Stream) -> Added {
        let mut open = self.open();
        if self.is_shut() {
            return Added::Shut;
        }
        if open.len() >= self.most && !give_way(&mut open) {
            return Added::Full(stream);
        }
        let connection = Arc::new(Connection {
            stream,
            waits_since: AtomicU64::new(self.now()),
        });
        open.push(connection.clone());
        Added::Open(connection)
    }

    /// It has ended.
    pub(super) fn remove(&self, connection: &Arc<Connection>) {
        let mut open = self.open();
        open.retain(|one| !Arc::ptr_eq(one, connection));
        if open.is_empty() {
            self.is_empty.notify_all();
        }
    }

    /// Ends the one that has waited longest for its client, if one does.
    pub(super) fn make_room(&self) -> bool {
        give_way(&mut self.open())
    }

    /// From now on it waits for its client.
    pub(super) fn wait(&self, connection: &Connection) {
        connection.waits_since.store(self.now(), Ordering::Relaxed);
    }

    /// From now on its request is worked on.
    pub(super) fn work(&self, connection: &Connection) {
        connection.waits_since.store(AT_WORK, Ordering::Relaxed);
    }

    /// Whether the stop has come.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    /// Takes no more, ends at once all that wait for a request, and those that are at work after `grace` at the latest.
    pub(super) fn end(&self, grace: Duration) {
        let open = self.open();
        self.is_shut.store(true, Ordering::Release);
        open.iter().for_each(|one| one.stream.end(Shutdown::Read));
        let waited = self.is_empty.wait_timeout_while(open, grace, |open| !open.is_empty());
        let (open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        open.iter().for_each(|one| one.stream.shut_down());
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(AT_WORK - 1)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give_way(open: &mut Vec<Arc<Connection>>) -> bool {
    let since = |place: &usize| open[*place].waits_since.load(Ordering::Relaxed);
    let longest = (0..open.len()).min_by_key(since);
    match longest.filter(|place| since(place) != AT_WORK) {
        Some(place) => {
            open.swap_remove(place).stream.shut_down();
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    const MOST: usize = 3;

    fn add(connections: &Connections) -> (Option<Arc<Connection>>, UnixStream) {
        let (own, theirs) = UnixStream::pair().unwrap();
        match connections.add(Stream::Unix(own)) {
            Added::Open(connection) => (Some(connection), theirs),
            Added::Full(_) | Added::Shut => (None, theirs),
        }
    }

    fn full() -> (Connections, Vec<(Arc<Connection>, UnixStream)>) {
        let connections = Connections::new(MOST);
        let all = (0..MOST).map(|_| add(&connections));
        let all = all.map(|(own, theirs)| (own.expect("room"), theirs)).collect();
        (connections, all)
    }

    #[test]
    fn the_one_that_has_waited_longest_gives_way_and_none_that_is_at_work() {
        let (connections, all) = full();
        for ((connection, _), since) in all.iter().zip([7, 5, 6]) {
            connection.waits_since.store(since, Ordering::Relaxed);
        }
        connections.work(&all[1].0);
        assert!(add(&connections).0.is_some());
        assert_eq!((&all[2].1).read(&mut [0]).unwrap(), 0, "it was shut down");
        connections.open().iter().for_each(|one| connections.work(one));
        assert!(add(&connections).0.is_none());
        assert!(!connections.make_room());
        connections.wait(&all[1].0);
        assert!(add(&connections).0.is_some());
        assert_eq!(connections.open().len(), MOST);
    }

    #[test]
    fn at_the_stop_those_at_work_may_still_write_for_a_while() {
        let (connections, all) = full();
        connections.end(Duration::ZERO);
        assert!(add(&connections).0.is_none() && connections.is_shut());
        assert_eq!((&all[0].1).read(&mut [0]).unwrap(), 0, "it was shut down");
        all.iter().for_each(|(connection, _)| connections.remove(connection));
        // Nobody is waited for.
        connections.end(Duration::from_secs(3600));
    }
}
