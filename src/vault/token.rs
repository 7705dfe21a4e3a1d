//! The token's life: how long it lasts, renewing it in time, replacing it, and saying in time that neither works.
//!
//! What counts is the life that remains, as the server tells it, not what the token was created with. A renewal at the
//! maximum lifetime succeeds and moves the end no further (FACTS.md section 8): then the token is replaced where the
//! login can do that. Elsewhere it is tried again whenever half of the rest is over, since a maximum can be raised and a
//! right given. The life is looked after at the start of each cycle, and by a thread of the role in long cycles, in long
//! pauses between them, and while the role stands by.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never};

use super::life::{Life, PAUSE};
use super::{Login, Session, Vault, answer, login};
use crate::error::{Context, Error, Kind, Level, Result};
use crate::http::{self, Http, Method};
use crate::scope::Scope;
use crate::secret::{SecretString, read_secret};

/// The limit of one renewal or login by the thread that keeps the token.
const PATIENCE: Duration = Duration::from_secs(10);
/// A token that nothing replaces is warned of when it has less than each of these left.
const WARNINGS: [Duration; 3] = [
    Duration::from_secs(7 * 86400),
    Duration::from_secs(86400),
    Duration::from_secs(3600),
];

/// Who hears of a token that will run out while no cycle looks at it.
pub struct Alarm<'a> {
    /// The life that the token must have left.
    pub reserve: Duration,
    /// Whether no cycle runs, and so none looks at the token.
    pub is_on: &'a AtomicBool,
    /// Told of it once, with an error that is fatal.
    pub ring: &'a (dyn Fn(Error) + Sync),
}

/// The token in use.
pub struct Held {
    token: RwLock<Option<SecretString>>,
    /// Taken while the token is looked up, renewed or replaced.
    life: Mutex<Life>,
    /// Wakes the thread that keeps the token, since there is another life to look after.
    changed: (Sender<()>, Receiver<()>),
}

impl Alarm<'_> {
    /// The life that is insisted on now.
    fn reserve(&self) -> Duration {
        match self.is_on.load(Ordering::Acquire) {
            true => self.reserve,
            false => Duration::ZERO,
        }
    }
}

impl Default for Held {
    fn default() -> Held {
        Held {
            token: RwLock::default(),
            life: Mutex::default(),
            changed: bounded(1),
        }
    }
}

/// Runs `body` while a thread for each of `vaults` keeps its token alive, and rings the alarm for one that can't be. When
/// the body or the scope ends, what these threads have in flight is cut, and they are joined.
pub fn with_tokens_kept<T>(scope: &Scope, vaults: &[&Vault], alarm: Option<&Alarm>, body: impl FnOnce() -> T) -> T {
    let keepers: Vec<&Http> = vaults.iter().map(|vault| &vault.keeper).collect();
    http::revive(&keepers);
    let (done, keeping) = scope.child();
    let keeping = &keeping;
    thread::scope(|threads| {
        // Dropped when the body has ended, in a panic too.
        let _done = done;
        threads.spawn(move || {
            keeping.wait(&never::<()>());
            keepers.iter().for_each(|keeper| keeper.cut());
        });
        for vault in vaults {
            threads.spawn(move || vault.keep_alive(keeping, alarm));
        }
        body()
    })
}

impl Vault {
    /// Keeps the token alive until the scope ends. Failures are logged and tried again; what they mean is for the cycles
    /// to say, but for a token that is about to run out.
    fn keep_alive(&self, scope: &Scope, alarm: Option<&Alarm>) {
        while scope.done().is_none() {
            match self.within(scope).next_look(alarm) {
                None => _ = scope.receive(&self.held.changed.1),
                Some(wait) if !wait.is_zero() => _ = scope.within(wait).receive(&self.held.changed.1),
                Some(_) => self.keep_once(scope, alarm),
            }
        }
    }

    fn keep_once(&self, scope: &Scope, alarm: Option<&Alarm>) {
        // Whoever needs the token's life meanwhile waits for this.
        let limited = scope.within(PATIENCE);
        let session = Session {
            http: &self.keeper,
            ..self.within(&limited)
        };
        let Err(error) = session.look_after(alarm) else {
            return;
        };
        if scope.done().is_some() {
            return;
        }
        match alarm {
            Some(alarm) if error.level() == Level::Fatal => {
                (alarm.ring)(error);
                // Nothing is to be done before there is another life.
                let _ = scope.receive(&self.held.changed.1);
            }
            _ => {
                log::warn!("the token for {} could not be kept alive: {error}", self.http.address());
                let left = session.life().left().unwrap_or_default();
                scope.sleep((left / 8).max(PAUSE));
            }
        }
    }
}

impl Session<'_> {
    /// Logs in if that hasn't happened yet, and checks that the token is alive.
    ///
    /// # Errors
    /// [`Kind::BadToken`] if the token or the login is refused; a file or server that can't be reached.
    pub fn log_in(&self) -> Result<()> {
        let token = self.token()?;
        let mut life = self.life();
        if life.seen_alive.is_some() {
            return Ok(());
        }
        match self.look_up(&token)? {
            Some(found) => {
                self.begin(&mut life, found);
                Ok(())
            }
            None => Err(self.lost_token()),
        }
    }

    /// Whether the token may do everything, as far as is known.
    pub fn is_root(&self) -> bool {
        self.life().is_root
    }

    /// For the start of a cycle: takes a changed token file, renews or replaces the token when half of its life is
    /// over, and insists on `reserve` of life if nothing can be done for it.
    ///
    /// # Errors
    /// As [`log_in`](Self::log_in); fatal for a token that will have run out before `reserve`.
    pub fn keep_token(&self, reserve: Option<Duration>) -> Result<()> {
        self.take_changed_file()?;
        self.log_in()?;
        let mut life = self.life();
        if life.is_due()
            && let Err(error) = self.prolong(&mut life)
        {
            // While the token in use lives, one more try at the next tick is better than no cycle.
            let left = life.left().unwrap_or_default();
            if left <= reserve.unwrap_or_default().max(PAUSE) {
                return Err(error.context(format!("the token in use runs out in {}", spelled(left))));
            }
            log::warn!(
                "the token for {} runs out in {}: {error}",
                self.http.address(),
                spelled(left)
            );
        }
        match reserve {
            Some(reserve) => self.ensure_lasts(&mut life, reserve),
            None => Ok(()),
        }
    }

    /// For the thread that keeps the token: what is to be done now.
    fn look_after(&self, alarm: Option<&Alarm>) -> Result<()> {
        self.take_changed_file()?;
        self.log_in()?;
        let mut life = self.life();
        if life.is_due() && (self.why_it_ends(&life).is_none() || self.may_renew(&life)) {
            self.prolong(&mut life)?;
        }
        match alarm {
            Some(alarm) => self.ensure_lasts(&mut life, alarm.reserve()),
            None => Ok(()),
        }
    }

    /// A token that nothing replaces must be replaced by a human, who is told while there is time.
    fn ensure_lasts(&self, life: &mut Life, reserve: Duration) -> Result<()> {
        if self.why_it_ends(life).is_some() && life.left().is_some_and(|left| left < reserve) {
            self.try_once_more(life)?;
        }
        let Some(why) = self.why_it_ends(life) else {
            return Ok(());
        };
        let Some(left) = life.left() else {
            return Ok(());
        };
        let source = self.vault.settings.login.source();
        let address = self.http.address();
        if left < reserve && !self.is_in_file() {
            let why = format!(
                "{source} for {address} runs out in {}, and {why}; give vsync another one, or an AppRole login",
                spelled(left)
            );
            return Err(Error::new(Kind::BadToken, why).fatal());
        }
        let stage = WARNINGS.iter().filter(|limit| left < **limit).count();
        if stage > life.warned {
            life.warned = stage;
            log::warn!("{source} for {address} runs out in {}, and {why}", spelled(left));
        }
        Ok(())
    }

    /// Before the token is given up: a renewal may do more than the last one did, or somebody else may have renewed it.
    fn try_once_more(&self, life: &mut Life) -> Result<()> {
        let is_fresh = life.told.is_some_and(|told| told.elapsed() < PAUSE);
        if self.may_renew(life) && !is_fresh {
            self.prolong(life)?;
        }
        let token = self.token()?;
        let Some(found) = self.look_up(&token)? else {
            return Err(self.lost_token());
        };
        *life = life.looked_up(found);
        Ok(())
    }

    fn may_renew(&self, life: &Life) -> bool {
        self.vault.settings.renew_token && life.renewable
    }

    /// Whether a human can give vsync another token without starting it again.
    fn is_in_file(&self) -> bool {
        matches!(self.vault.settings.login, Login::TokenFile(_))
    }

    /// Why the token has an end that vsync can't move; `None` if it has none, or can be replaced.
    fn why_it_ends(&self, life: &Life) -> Option<&'static str> {
        life.expires?;
        match &self.vault.settings.login {
            login if login.can_be_repeated() => None,
            _ if !self.vault.settings.renew_token => Some("`renewToken` is false"),
            _ if !life.renewable => Some("it can't be renewed"),
            _ => life.end,
        }
    }

    /// How long it is until something can be done for the token, or must be said of it; `None` if nothing can, or need.
    fn next_look(&self, alarm: Option<&Alarm>) -> Option<Duration> {
        let life = self.life();
        if self.why_it_ends(&life).is_none() {
            return life.due();
        }
        let left = life.left().filter(|left| !left.is_zero())?;
        let renewal = life.due().filter(|_| self.may_renew(&life));
        let warning = WARNINGS.get(life.warned).filter(|_| alarm.is_some());
        let warning = warning.map(|limit| left.saturating_sub(*limit));
        let last = alarm.filter(|_| !self.is_in_file()).map(|alarm| {
            // Cycles may end at any time.
            let pause = if alarm.reserve().is_zero() {
                PAUSE
            } else {
                Duration::ZERO
            };
            left.saturating_sub(alarm.reserve).max(pause)
        });
        [renewal, warning, last].into_iter().flatten().min()
    }

    /// Renews the token, or logs in again where it can't be renewed any more.
    fn prolong(&self, life: &mut Life) -> Result<()> {
        let is_replaced = self.vault.settings.login.can_be_repeated();
        if self.may_renew(life) && !(is_replaced && life.end.is_some()) {
            let asked = Instant::now();
            let reply = self.send_with(Some(&self.token()?), Method::Post, "auth/token/renew-self", Some(b"{}"))?;
            match reply.status {
                200 => {
                    let renewal = login::auth(&reply.body)?.life(asked);
                    let mut renewed = life.renewed(renewal);
                    if renewed.end.is_some() && !is_replaced {
                        renewed.put_off();
                    }
                    self.begin(life, renewed);
                    return Ok(());
                }
                400 | 403 if answer::is_own_refusal(&reply) => life.refused(),
                // A certificate's token is renewed only over a connection with the same certificate.
                500 if is_replaced => {}
                _ => {
                    let context = || format!("renew the token at {}", self.http.address());
                    return Err(answer::refusal(&reply)).context(context);
                }
            }
        }
        self.log_in_anew(life).map(drop)
    }

    /// A token file may have been written anew since it was read.
    fn take_changed_file(&self) -> Result<()> {
        if let (Login::TokenFile(path), Some(held)) = (&self.vault.settings.login, self.held())
            && read_secret(path)? != held
        {
            self.log_in_first(&mut self.life())?;
        }
        Ok(())
    }

    /// The token in use; logs in for the first one.
    pub(super) fn token(&self) -> Result<SecretString> {
        if let Some(token) = self.held() {
            return Ok(token);
        }
        let mut life = self.life();
        match self.held() {
            Some(token) => Ok(token),
            None => self.log_in_first(&mut life),
        }
    }

    /// After a 403: `None` if `used` is alive, and so lacks a right; a new token if `used` was dead. Threads that were
    /// refused while another looked the token up share the next look-up.
    pub(super) fn replace_if_dead(&self, used: &SecretString) -> Result<Option<SecretString>> {
        let refused = Instant::now();
        let mut life = self.life();
        if let Some(token) = self.held().filter(|token| token != used) {
            return Ok(Some(token));
        }
        if life.seen_alive.is_some_and(|seen| seen > refused) {
            return Ok(None);
        }
        if let Some(found) = self.look_up(used)? {
            *life = life.looked_up(found);
            return Ok(None);
        }
        let fresh = self.log_in_anew(&mut life)?;
        fresh.map_or_else(|| Err(self.lost_token()), |fresh| Ok(Some(fresh)))
    }

    /// A token other than the one in use, where the login can give one.
    fn log_in_anew(&self, life: &mut Life) -> Result<Option<SecretString>> {
        let before = self.held();
        let fresh = match &self.vault.settings.login {
            Login::Token(_) => return Ok(None),
            // Reading the same token again says nothing new about it.
            Login::TokenFile(path) if before.as_ref() == Some(&read_secret(path)?) => return Ok(None),
            _ => self.log_in_first(life)?,
        };
        Ok(Some(fresh).filter(|fresh| Some(fresh) != before.as_ref()))
    }

    fn log_in_first(&self, life: &mut Life) -> Result<SecretString> {
        let (token, known) = self.obtain()?;
        {
            let mut held = self.vault.held.token.write().unwrap_or_else(PoisonError::into_inner);
            *held = Some(token.clone());
        }
        self.begin(life, known);
        Ok(token)
    }

    fn begin(&self, life: &mut Life, known: Life) {
        *life = known;
        // A wake-up that waits already is as good.
        let _ = self.vault.held.changed.0.try_send(());
    }

    fn held(&self) -> Option<SecretString> {
        self.vault
            .held
            .token
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.vault.held.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time as the configuration spells it, in its two largest units: `2d3h`, `1m40s`.
fn spelled(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("d", 86400), ("h", 3600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(3);
    let mut rest = seconds;
    let mut text = String::new();
    for (unit, size) in units.iter().skip(first).take(2) {
        if rest >= *size || text.is_empty() {
            text.push_str(&format!("{}{unit}", rest / size));
        }
        rest %= size;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_in_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (100, "1m40s"),
            (3600, "1h"),
            (3661, "1h1m"),
            (200_000, "2d7h"),
        ] {
            assert_eq!(spelled(Duration::from_secs(seconds)), text);
        }
    }
}
