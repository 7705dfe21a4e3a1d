//! The worker pool: one sender, a bounded queue, and threads that are joined by whoever started them.
//!
//! Jobs travel in batches: handed over one by one, waking a thread costs more than what vsync does with most jobs. While
//! there are many, batches are large, since each one wakes the sender too, and a server that waits for a client's threads
//! is idle; they get smaller towards the end, so that all workers end at about the same time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam_channel::{Sender, bounded};

use super::Run;
use crate::error::{Error, Kind};

/// The most jobs that one worker takes at once.
const BATCH: usize = 64;

/// Where the sender puts jobs.
pub struct Queue<'a, J> {
    run: &'a Run<'a>,
    jobs: Sender<Vec<J>>,
    workers: usize,
}

impl<J> Queue<'_, J> {
    /// Hands out all `jobs`; `false` if the cycle has ended.
    pub fn send_all(&self, jobs: impl IntoIterator<Item = J, IntoIter: ExactSizeIterator>) -> bool {
        let mut jobs = jobs.into_iter();
        loop {
            let size = self.batch_of(jobs.len());
            let batch: Vec<J> = jobs.by_ref().take(size).collect();
            if batch.is_empty() {
                return true;
            }
            if !self.send(batch) {
                return false;
            }
        }
    }

    /// Hands out the last few of `jobs`, more of which may come; `false` if the cycle has ended.
    pub fn send_some(&self, jobs: &mut Vec<J>) -> bool {
        self.send(jobs.split_off(jobs.len() - self.batch_of(jobs.len()).min(jobs.len())))
    }

    fn batch_of(&self, jobs: usize) -> usize {
        (jobs / (4 * self.workers)).clamp(1, BATCH)
    }

    fn send(&self, batch: Vec<J>) -> bool {
        self.run.check().is_ok() && self.run.scope.send(&self.jobs, batch)
    }
}

/// Calls `work` with every job that `feed` sends, on `workers` threads, and returns when all have ended. A worker that
/// panics ends the cycle; the caller finds that out from [`Run::check`].
pub fn run<J: Send>(run: &Run, workers: usize, feed: impl FnOnce(&Queue<J>) + Send, work: impl Fn(J) + Sync) {
    let (jobs, waiting) = bounded::<Vec<J>>(2 * workers);
    thread::scope(|threads| {
        for _ in 0..workers {
            let (waiting, work) = (waiting.clone(), &work);
            threads.spawn(move || {
                let working = || {
                    while let Some(batch) = run.scope.receive(&waiting) {
                        // The error that ended the cycle may be this worker's own, and the listener not there yet.
                        batch.into_iter().take_while(|_| run.check().is_ok()).for_each(work);
                    }
                };
                if catch_unwind(AssertUnwindSafe(working)).is_err() {
                    run.end(Error::new(Kind::Panic, "a defect: a worker panicked"));
                }
            });
        }
        // Were it kept, a queue whose workers have all panicked would never be seen to be closed.
        drop(waiting);
        threads.spawn(move || feed(&Queue { run, jobs, workers }));
    });
}

/// Calls `work` with each of `jobs`, as [`run`] does; a single one by the calling thread itself, since to start another takes
/// as long as a server's answer.
pub fn run_all<J: Send>(cycle: &Run, workers: usize, mut jobs: Vec<J>, work: impl Fn(J) + Sync) {
    if jobs.len() > 1 {
        let workers = workers.min(jobs.len());
        return run(cycle, workers, |queue| _ = queue.send_all(jobs), work);
    }
    let Some(job) = jobs.pop() else {
        return;
    };
    if catch_unwind(AssertUnwindSafe(|| work(job))).is_err() {
        cycle.end(Error::new(Kind::Panic, "a defect: a worker panicked"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use crossbeam_channel::unbounded;

    use super::super::report::Tally;
    use super::*;
    use crate::error::Level;
    use crate::scope::Scope;

    /// With more jobs than the queue holds, so that a sender that nobody listens to would wait for ever.
    #[test]
    fn a_panic_of_every_worker_ends_the_cycle_with_an_error() {
        let (_stop, scope) = Scope::root();
        let (problems, heard) = unbounded();
        let (tally, ended) = (Tally::default(), AtomicBool::new(false));
        let cycle = Run {
            scope: &scope,
            tally: &tally,
            problems,
            ended: &ended,
        };
        let done = AtomicUsize::new(0);
        run(
            &cycle,
            3,
            |queue| _ = queue.send_all(0..100),
            |job| {
                done.fetch_add(1, Ordering::Relaxed);
                assert!(job > 100, "the worker's panic");
            },
        );
        assert!(cycle.check().is_err());
        assert!((1..=3).contains(&done.into_inner()), "a worker panics once");
        let problem = heard.try_recv().unwrap();
        assert_eq!(
            (problem.error.kind(), problem.error.level()),
            (Kind::Panic, Level::Cycle)
        );
    }
}
