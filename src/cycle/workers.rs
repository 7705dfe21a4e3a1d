//! The worker pool: one sender, a bounded queue, and threads that are joined by whoever started them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam_channel::{Sender, bounded};

use super::Run;
use crate::error::{Error, Kind};

/// Where the sender puts jobs.
pub struct Queue<'a, J> {
    run: &'a Run<'a>,
    jobs: Sender<J>,
}

impl<J> Queue<'_, J> {
    /// Hands a job to the next free worker; `false` if the cycle has ended.
    pub fn send(&self, job: J) -> bool {
        self.run.check().is_ok() && self.run.scope.send(&self.jobs, job)
    }

    /// Hands out jobs until there are no more, or the cycle has ended.
    pub fn send_all(&self, jobs: Vec<J>) {
        for job in jobs {
            if !self.send(job) {
                return;
            }
        }
    }
}

/// Calls `work` with every job that `feed` sends, on `workers` threads, and returns when all have ended. A worker that
/// panics ends the cycle; the caller finds that out from [`Run::check`].
pub fn run<J: Send>(run: &Run, workers: usize, feed: impl FnOnce(&Queue<J>) + Send, work: impl Fn(J) + Sync) {
    let (jobs, waiting) = bounded(2 * workers);
    thread::scope(|threads| {
        for _ in 0..workers {
            let (waiting, work) = (waiting.clone(), &work);
            threads.spawn(move || {
                let working = || {
                    while let Some(job) = run.scope.receive(&waiting) {
                        // The error that ended the cycle may be this worker's own, and the listener not there yet.
                        if run.check().is_err() {
                            return;
                        }
                        work(job);
                    }
                };
                if catch_unwind(AssertUnwindSafe(working)).is_err() {
                    run.end(Error::new(Kind::Panic, "a defect: a worker panicked"));
                }
            });
        }
        // Were it kept, a queue whose workers have all panicked would never be seen to be closed.
        drop(waiting);
        threads.spawn(move || feed(&Queue { run, jobs }));
    });
}
