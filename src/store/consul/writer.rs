//! One save to Consul.
//!
//! It is one transaction where it fits into one: then readers see all of it or nothing. Else it is as few as hold it: the
//! first, with `meta`, before the others, and the index in the last, after all of them. Every one is refused by Consul
//! unless the lock is still held and the index is still the one that was loaded.

use std::sync::Arc;
use std::thread;

use super::ConsulStore;
use crate::consul::{Holding, Op, Transaction, Verdict};
use crate::error::{Context, Kind, Result, fail};
use crate::scope::Scope;
use crate::store::{Revision, Store, Writer, lost_race};

/// How many transactions are on their way at the same time.
const MOST_AT_ONCE: usize = 4;

/// One save.
pub struct ConsulWriter<'a> {
    store: &'a ConsulStore,
    scope: &'a Scope,
    holding: Arc<Holding>,
    /// The key that makes the save count.
    key: String,
    /// Its modify index; 0 if it is absent.
    expected: u64,
    /// What was set last.
    open: Transaction,
    /// Full ones that need not be sent one after the other.
    full: Vec<Transaction>,
    /// Whether the first one was sent.
    has_begun: bool,
}

impl<'a> ConsulWriter<'a> {
    pub fn new(
        store: &'a ConsulStore,
        scope: &'a Scope,
        holding: Arc<Holding>,
        (key, expected): (&str, Option<&Revision>),
    ) -> ConsulWriter<'a> {
        let mut writer = ConsulWriter {
            store,
            scope,
            key: key.to_string(),
            expected: expected.map_or(0, |revision| revision.0),
            open: under(&holding),
            holding,
            full: Vec::new(),
            has_begun: false,
        };
        writer.open = writer.guarded();
        writer
    }

    /// A transaction that counts only while nobody else has saved.
    fn guarded(&self) -> Transaction {
        let mut transaction = under(&self.holding);
        transaction.push(Op::Check(&self.key, self.expected));
        transaction
    }

    /// Sends a transaction.
    fn send(&self, transaction: &Transaction) -> Result<Verdict> {
        self.holding.check()?;
        let verdict = self.store.consul.transact(self.scope, transaction);
        match verdict.context(|| format!("write the key {}", transaction.key()))? {
            Verdict::Fenced => Err(self.holding.refused()),
            verdict => Ok(verdict),
        }
    }

    /// Sends a transaction that nothing but another writer can make stale.
    fn write(&self, transaction: &Transaction) -> Result<()> {
        match self.send(transaction)? {
            Verdict::Stale => Err(lost_race(&self.key, &self.store.place())),
            _ => Ok(()),
        }
    }

    /// Begins a new transaction.
    fn close(&mut self) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let next = self.guarded();
        let full = std::mem::replace(&mut self.open, next);
        if !self.has_begun {
            self.has_begun = true;
            return self.write(&full);
        }
        self.full.push(full);
        match self.full.len() {
            MOST_AT_ONCE => self.write_full(),
            _ => Ok(()),
        }
    }

    /// Sends the full ones, all at the same time.
    fn write_full(&mut self) -> Result<()> {
        let full = std::mem::take(&mut self.full);
        let this = &*self;
        thread::scope(|threads| {
            let sent = full.iter().map(|full| threads.spawn(move || this.write(full)));
            let sent: Vec<_> = sent.collect();
            let outcomes = sent.into_iter().map(|sent| match sent.join() {
                Ok(outcome) => outcome,
                Err(_) => fail(Kind::Panic, "a defect: a thread of the save panicked"),
            });
            outcomes.fold(Ok(()), Result::and)
        })
    }

    /// Writes one value by itself: more than a transaction takes. All that can be done is to look at the lock right before.
    /// The index, which makes it count, is always in a transaction.
    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.holding.check()?;
        let lock = self.store.consul.get(self.scope, self.holding.key())?;
        if lock.and_then(|lock| lock.session).as_deref() != Some(self.holding.session()) {
            return Err(self.holding.refused());
        }
        self.store.put(self.scope, key, bytes)
    }
}

impl Writer for ConsulWriter<'_> {
    fn set(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        if self.open.push(Op::Set(key, bytes)) {
            return Ok(());
        }
        self.close()?;
        match self.open.push(Op::Set(key, bytes)) {
            true => Ok(()),
            false => self.put(key, bytes),
        }
    }

    fn commit(&mut self, bytes: &[u8]) -> Result<Option<Revision>> {
        let key = self.key.clone();
        let op = Op::SetIf(&key, bytes, self.expected);
        if !self.open.push(op) {
            self.close()?;
            // Without the check, which it makes itself: it may need all the room there is.
            self.open = under(&self.holding);
            if !self.open.push(op) {
                let place = self.store.place();
                return fail(
                    Kind::Refused,
                    format!("{key} is larger than {place} takes at once: lower numBuckets, at both ends"),
                );
            }
        }
        self.write_full()?;
        let last = std::mem::replace(&mut self.open, under(&self.holding));
        match self.send(&last)? {
            Verdict::Written(index) => Ok(index.map(Revision)),
            _ => Ok(None),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.close()?;
        self.write_full()
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        let mut some = under(&self.holding);
        for key in keys {
            if !some.push(Op::Delete(key)) {
                self.send(&some)?;
                some = under(&self.holding);
                some.push(Op::Delete(key));
            }
        }
        match some.is_empty() {
            true => Ok(()),
            false => self.send(&some).map(drop),
        }
    }
}

/// An empty transaction that counts only while the lock is held.
fn under(holding: &Holding) -> Transaction {
    Transaction::under(holding.key(), holding.session())
}
