//! What an origin's workers do next: folders to list, and the paths that the listings bring.
//!
//! Folders are listed by the workers too, in parallel; the sender sees to it that they run out of neither, and that
//! what waits stays small.

use crossbeam_channel::Receiver;

use super::Run;
use super::workers::Queue;
use crate::engine::DataPath;

/// Listings that are under way while there are still paths to look at: enough that these never run out.
const LISTINGS_AHEAD: usize = 2;

/// What a worker does.
pub enum Job {
    /// List a folder of the data path of this number.
    List(usize, String),
    /// Find out about a path of the data path of this number.
    Look(usize, String),
}

/// What is still to be sent. Paths mostly go before folders, so that what waits stays small.
struct Pending {
    folders: Vec<Job>,
    paths: Vec<Job>,
    /// Listings that a worker has and has not answered yet.
    listing: usize,
}

impl Pending {
    fn take(&mut self, listed: Vec<Job>) {
        self.listing -= 1;
        for job in listed {
            match job {
                Job::List(..) => self.folders.push(job),
                Job::Look(..) => self.paths.push(job),
            }
        }
    }

    /// A folder, if it is a folder's turn.
    fn folder(&mut self) -> Option<Job> {
        let is_folders_turn = self.paths.is_empty() || self.listing < LISTINGS_AHEAD;
        let folder = self.folders.pop_if(|_| is_folders_turn)?;
        self.listing += 1;
        Some(folder)
    }
}

/// Sends the data paths' folders and then whatever is found in them, until no listing is under way any more.
pub fn feed(run: &Run, queue: &Queue<Job>, data_paths: &[DataPath], listings: &Receiver<Vec<Job>>) {
    let root = |(number, data_path): (usize, &DataPath)| Job::List(number, data_path.folder.clone());
    let mut pending = Pending {
        folders: data_paths.iter().enumerate().map(root).collect(),
        paths: Vec::new(),
        listing: 0,
    };
    loop {
        while let Ok(listed) = listings.try_recv() {
            pending.take(listed);
        }
        let goes_on = if let Some(folder) = pending.folder() {
            queue.send_all([folder])
        } else if !pending.paths.is_empty() {
            queue.send_some(&mut pending.paths)
        } else if pending.listing > 0 {
            run.scope.receive(listings).map(|listed| pending.take(listed)).is_some()
        } else {
            false
        };
        if !goes_on {
            return;
        }
    }
}
