//! The entries of a bucket: paths in bytewise order, each with what is known about it.
//!
//! A million paths are held here, twice while an origin's cycle runs. So an entry is no allocation of its own: all lie
//! one after the other in pages of one size, which fit wherever others were given back, and their order is a list of
//! places of four bytes. A page is never taken away from; what was removed stays until a quarter is waste.

use super::known::{Known, Reader, put_text};

/// The most bytes in a page, but for one entry that needs more.
const PAGE: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 14;
/// Into how many parts a search divides what is left.
const WAYS: usize = 8;
/// The size of the first page, so that many small buckets stay small.
const FIRST_PAGE: usize = 256;
/// Waste that isn't worth moving the rest for.
const LITTLE: usize = 4096;

/// The entries.
#[derive(Clone, Default)]
pub(super) struct Entries {
    pages: Vec<Vec<u8>>,
    /// In bytewise order of the paths.
    order: Vec<Place>,
    /// Bytes in the pages, and how many of them belong to no entry any more.
    used: usize,
    wasted: usize,
}

/// Where an entry begins: the page's number, and how far into the page.
#[derive(Clone, Copy)]
struct Place(u32);

impl Place {
    /// The next entry in the last of `pages`.
    fn at_end(pages: &[Vec<u8>]) -> Place {
        let page = pages.len() - 1;
        match u32::try_from(page << PAGE_BITS | pages[page].len()) {
            Ok(place) => Place(place),
            Err(_) => unreachable!("no bucket has four gigabytes"),
        }
    }

    fn bytes(self, pages: &[Vec<u8>]) -> &[u8] {
        let (page, start) = (self.0 >> PAGE_BITS, self.0 as usize % PAGE);
        &pages[page as usize][start..]
    }
}

/// A path and what is known about it.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    /// The path, which is text.
    pub path: &'a [u8],
    pub known: Known<'a>,
}

impl Entries {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The bytes that they take.
    pub fn size(&self) -> usize {
        self.used - self.wasted
    }

    /// All in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.order.iter().map(|place| self.entry(*place))
    }

    /// What is known about `path`.
    pub fn get(&self, path: &str) -> Option<Known<'_>> {
        let found = self.find(path).ok()?;
        Some(self.entry(self.order[found]).known)
    }

    /// Lists `path`, or replaces what was known about it; whether that changed anything.
    pub fn insert(&mut self, path: &str, packed: &[u8]) -> bool {
        match self.find(path) {
            Ok(found) => self.replace(found, path, packed),
            Err(before) => {
                let place = self.push(path, packed);
                if self.order.len() == self.order.capacity() {
                    // Doubling would leave a quarter of it empty on average.
                    self.order.reserve_exact(self.order.len() / 8 + 8);
                }
                self.order.insert(before, place);
                true
            }
        }
    }

    /// As [`Entries::insert`], for a path that is not listed; whether it isn't.
    pub fn insert_new(&mut self, path: &str, packed: &[u8]) -> bool {
        self.find(path).is_err() && self.insert(path, packed)
    }

    /// Takes `path` off the list; whether it was on it.
    pub fn remove(&mut self, path: &str) -> bool {
        let Ok(found) = self.find(path) else {
            return false;
        };
        let place = self.order.remove(found);
        self.waste(self.length(place));
        true
    }

    /// Takes off the list what `is_kept` isn't true of.
    pub fn retain(&mut self, is_kept: impl Fn(Entry) -> bool) {
        let (kept, dropped): (Vec<Place>, Vec<Place>) =
            self.order.iter().partition(|place| is_kept(self.entry(**place)));
        let length = dropped.into_iter().map(|place| self.length(place)).sum();
        self.order = kept;
        self.waste(length);
    }

    /// Where `path` is in the order, or where it belongs. Stored buckets come in order, each path after the last.
    fn find(&self, path: &str) -> Result<usize, usize> {
        let path = path.as_bytes();
        match self.order.last() {
            None => Err(0),
            Some(last) if self.path(*last) < path => Err(self.order.len()),
            Some(_) => self.search(path),
        }
    }

    /// A search by [`WAYS`] at a time: what a page holds is hardly ever near the processor, and while two ways are decided
    /// one after the other, several can be looked at in one wait.
    fn search(&self, path: &[u8]) -> Result<usize, usize> {
        let (mut start, mut end) = (0, self.order.len());
        while end - start > WAYS {
            let step = (end - start) / WAYS;
            let is_before = |way: &usize| self.path(self.order[start + way * step]) <= path;
            let ways = (1..WAYS).take_while(is_before).count();
            end = if ways + 1 == WAYS {
                end
            } else {
                start + (ways + 1) * step
            };
            start += ways * step;
        }
        let before = |place: &&Place| self.path(**place) < path;
        let at = start + self.order[start..end].iter().take_while(before).count();
        match self.order.get(at) {
            Some(place) if self.path(*place) == path => Ok(at),
            _ => Err(at),
        }
    }

    fn path(&self, place: Place) -> &[u8] {
        Reader(place.bytes(&self.pages)).text()
    }

    fn entry(&self, place: Place) -> Entry<'_> {
        let mut reader = Reader(place.bytes(&self.pages));
        Entry {
            path: reader.text(),
            known: Known::read(&mut reader),
        }
    }

    fn length(&self, place: Place) -> usize {
        let bytes = place.bytes(&self.pages);
        let mut reader = Reader(bytes);
        reader.text();
        Known::read(&mut reader);
        bytes.len() - reader.0.len()
    }

    fn replace(&mut self, found: usize, path: &str, packed: &[u8]) -> bool {
        let place = self.order[found];
        let known = self.entry(place).known.bytes();
        if known == packed {
            return false;
        }
        if known.len() == packed.len() {
            let (page, end) = (place.0 >> PAGE_BITS, place.0 as usize % PAGE + self.length(place));
            self.pages[page as usize][end - packed.len()..end].copy_from_slice(packed);
        } else {
            let length = self.length(place);
            self.order[found] = self.push(path, packed);
            self.waste(length);
        }
        true
    }

    fn push(&mut self, path: &str, packed: &[u8]) -> Place {
        let most = path.len() + packed.len() + size_of::<u64>();
        let has_room = |page: &Vec<u8>| page.len() < PAGE && page.capacity() - page.len() >= most;
        if !self.pages.last().is_some_and(has_room) {
            let usual = self.used.clamp(FIRST_PAGE, PAGE);
            self.pages.push(Vec::with_capacity(usual.max(most)));
        }
        let place = Place::at_end(&self.pages);
        if let Some(page) = self.pages.last_mut() {
            let before = page.len();
            put_text(page, path.as_bytes());
            page.extend_from_slice(packed);
            self.used += page.len() - before;
        }
        place
    }

    /// Counts bytes that belong to no entry any more, and moves the entries together when there are many of them.
    fn waste(&mut self, bytes: usize) {
        self.wasted += bytes;
        if self.wasted > LITTLE && self.wasted > self.used / 4 {
            let mut moved = Entries::default();
            moved.order.reserve_exact(self.order.len());
            for entry in self.iter() {
                let place = moved.push(super::known::as_text(entry.path), entry.known.bytes());
                moved.order.push(place);
            }
            *self = moved;
        }
    }
}
