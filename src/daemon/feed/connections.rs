//! The connections that are open: so many and no more, and all cut at the stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::socket::Stream;

/// An audit device has one connection, and a cluster has a few servers.
pub(super) const MOST: usize = 64;
/// Where there are too many, one that has been silent for so long gives way: its other end may be gone without a word, and
/// such connections would add up.
const SILENT: Duration = Duration::from_secs(60);

/// All that are open.
pub(super) struct Connections {
    open: Mutex<Open>,
    began: Instant,
    silent: Duration,
}

#[derive(Default)]
struct Open {
    is_shut: bool,
    all: Vec<Arc<Connection>>,
}

/// One of them.
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// When something last came, in milliseconds since the beginning of all.
    heard: AtomicU64,
}

/// What became of a new connection.
pub(super) enum Added {
    /// It is open until it is removed.
    Open(Arc<Connection>),
    /// There are too many already.
    Full,
    /// No more are wanted.
    Shut,
}

impl Connections {
    /// None yet.
    pub(super) fn new() -> Connections {
        Connections {
            open: Mutex::default(),
            began: Instant::now(),
            silent: SILENT,
        }
    }

    /// Takes a new one, if there is room or one that gives way.
    pub(super) fn add(&self, stream: Stream) -> Added {
        let mut open = self.open();
        if open.is_shut {
            return Added::Shut;
        }
        if open.all.len() >= MOST && !self.make_room(&mut open) {
            return Added::Full;
        }
        let connection = Arc::new(Connection {
            stream,
            heard: AtomicU64::new(self.now()),
        });
        open.all.push(connection.clone());
        Added::Open(connection)
    }

    /// It has ended.
    pub(super) fn remove(&self, connection: &Arc<Connection>) {
        self.open().all.retain(|one| !Arc::ptr_eq(one, connection));
    }

    /// Something came by it.
    pub(super) fn hear(&self, connection: &Connection) {
        connection.heard.store(self.now(), Ordering::Relaxed);
    }

    /// Ends all, and takes no more.
    pub(super) fn shut_down(&self) {
        let mut open = self.open();
        open.is_shut = true;
        open.all.iter().for_each(|one| one.stream.shut_down());
    }

    fn make_room(&self, open: &mut Open) -> bool {
        let heard = |one: &Arc<Connection>| one.heard.load(Ordering::Relaxed);
        let Some(place) = (0..open.all.len()).min_by_key(|place| heard(&open.all[*place])) else {
            return false;
        };
        let silence = Duration::from_millis(self.now().saturating_sub(heard(&open.all[place])));
        let gives_way = silence >= self.silent;
        if gives_way {
            open.all.swap_remove(place).stream.shut_down();
        }
        gives_way
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn add(connections: &Connections) -> (Option<Arc<Connection>>, UnixStream) {
        let (own, theirs) = UnixStream::pair().unwrap();
        match connections.add(Stream::Unix(own)) {
            Added::Open(connection) => (Some(connection), theirs),
            Added::Full | Added::Shut => (None, theirs),
        }
    }

    fn full(silent: Duration) -> (Connections, Vec<(Arc<Connection>, UnixStream)>) {
        let connections = Connections {
            silent,
            ..Connections::new()
        };
        let all = (0..MOST).map(|_| add(&connections));
        let all = all.map(|(own, theirs)| (own.expect("room"), theirs)).collect();
        (connections, all)
    }

    #[test]
    fn what_talks_keeps_its_place_and_what_ends_makes_room() {
        let (connections, all) = full(SILENT);
        assert!(add(&connections).0.is_none());
        connections.remove(&all[3].0);
        assert!(add(&connections).0.is_some());
        assert!(add(&connections).0.is_none());
        connections.shut_down();
        assert!(add(&connections).0.is_none());
        assert_eq!((&all[0].1).read(&mut [0]).unwrap(), 0, "it was shut down");
    }

    #[test]
    fn the_one_that_has_been_silent_longest_gives_way() {
        let (connections, all) = full(Duration::ZERO);
        // Ahead of the clock, so that no pause is needed.
        for (connection, _) in &all {
            connection.heard.store(u64::MAX - 1, Ordering::Relaxed);
        }
        all[5].0.heard.store(0, Ordering::Relaxed);
        assert!(add(&connections).0.is_some());
        assert_eq!((&all[5].1).read(&mut [0]).unwrap(), 0, "it was shut down");
        connections.remove(&all[5].0);
        assert_eq!(connections.open().all.len(), MOST);
    }
}
