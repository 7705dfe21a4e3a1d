//! The token's life: how long it lasts, renewing it in time, replacing it, and saying in time that neither works.
//!
//! What counts is the life that remains, as the server tells it, not what the token was created with. A renewal at the
//! maximum lifetime succeeds with less than before (FACTS.md section 8): then the token is not renewed again, but
//! replaced where the login can do that. The life is looked after at the start of each cycle, and by a thread of the
//! role in long cycles and long pauses between them.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never};

use super::{Login, Session, Vault, login};
use crate::error::{Error, Kind, Result};
use crate::http::{self, Http, Method};
use crate::scope::Scope;
use crate::secret::{SecretString, read_secret};

/// The least pause after a renewal that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The limit of one renewal or login by the thread that keeps the token.
const PATIENCE: Duration = Duration::from_secs(10);
/// A token that nothing replaces is warned of when it has less than each of these left.
const WARNINGS: [Duration; 3] = [
    Duration::from_secs(7 * 86400),
    Duration::from_secs(86400),
    Duration::from_secs(3600),
];

/// The token in use.
pub struct Held {
    token: RwLock<Option<SecretString>>,
    /// Taken while the token is looked up, renewed or replaced.
    life: Mutex<Life>,
    /// Wakes the thread that keeps the token, since there is another life to look after.
    changed: (Sender<()>, Receiver<()>),
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

/// What is known of the token's life.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// At this moment, or after it, the server knew the token.
    seen_alive: Option<Instant>,
    renewable: bool,
    /// A renewal gave less than there was before: the maximum lifetime is near.
    is_capped: bool,
    is_root: bool,
    /// What the server gave last, and the most that it ever gave.
    granted: Duration,
    most: Duration,
    /// `None`: not known yet, or it never expires.
    expires: Option<Instant>,
    /// How many of [`WARNINGS`] have been given.
    warned: usize,
}

impl Life {
    /// As the server said in the answer to what it was `asked` at that moment; without a time, it never expires.
    pub fn new(asked: Instant, left: Option<Duration>, renewable: bool) -> Life {
        let granted = left.unwrap_or_default();
        Life {
            seen_alive: Some(asked),
            renewable,
            granted,
            most: granted,
            expires: left.and_then(|left| asked.checked_add(left)),
            ..Life::default()
        }
    }

    /// The same life, of a token that may do everything.
    pub fn with_root(self, is_root: bool) -> Life {
        Life { is_root, ..self }
    }

    /// The life after a renewal; of two times in whole seconds, one less is no shorter.
    fn renewed(&self, renewal: Life) -> Life {
        let most = self.most.max(renewal.granted);
        Life {
            is_capped: renewal.granted + Duration::from_secs(1) < most || renewal.granted < PAUSE,
            is_root: self.is_root,
            most,
            warned: self.warned,
            ..renewal
        }
    }

    /// What a look-up found, of a token whose earlier life is known.
    fn looked_up(&self, found: Life) -> Life {
        Life {
            is_capped: self.is_capped,
            warned: self.warned,
            most: self.most.max(found.granted),
            ..found
        }
    }

    fn left(&self) -> Option<Duration> {
        let end = self.expires?;
        Some(end.saturating_duration_since(Instant::now()))
    }

    /// How long it is until half of what was granted is over.
    fn due(&self) -> Option<Duration> {
        Some(self.left()?.saturating_sub(self.granted / 2))
    }

    fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due.is_zero())
    }
}

/// Runs `body` while a thread for each of `vaults` keeps its token alive. When the body or the scope ends, what these
/// threads have in flight is cut, and they are joined.
pub fn with_tokens_kept<T>(scope: &Scope, vaults: &[&Vault], body: impl FnOnce() -> T) -> T {
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
            threads.spawn(move || vault.keep_alive(keeping));
        }
        body()
    })
}

impl Vault {
    /// Keeps the token alive until the scope ends. Failures are logged and tried again; it is for the cycles to say
    /// what they mean.
    fn keep_alive(&self, scope: &Scope) {
        while scope.done().is_none() {
            match self.within(scope).due() {
                None => _ = scope.receive(&self.held.changed.1),
                Some(wait) if !wait.is_zero() => _ = scope.within(wait).receive(&self.held.changed.1),
                Some(_) => self.keep_once(scope),
            }
        }
    }

    fn keep_once(&self, scope: &Scope) {
        // Whoever needs the token's life meanwhile waits for this.
        let limited = scope.within(PATIENCE);
        let session = Session {
            http: &self.keeper,
            ..self.within(&limited)
        };
        let outcome = session.prolong(&mut session.life());
        if let Err(error) = outcome
            && scope.done().is_none()
        {
            log::warn!("the token for {} could not be kept alive: {error}", self.http.address());
            let left = session.life().left().unwrap_or_default();
            scope.sleep((left / 8).max(PAUSE));
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

    /// A token that nothing replaces must be replaced by a human, who is told while there is time.
    fn ensure_lasts(&self, life: &mut Life, reserve: Duration) -> Result<()> {
        let Some(why) = self.why_it_ends(life) else {
            return Ok(());
        };
        if life.left().is_some_and(|left| left < reserve) {
            // Somebody else may have renewed it.
            let token = self.token()?;
            let Some(found) = self.look_up(&token)? else {
                return Err(self.lost_token());
            };
            *life = life.looked_up(found);
        }
        let Some(left) = life.left() else {
            return Ok(());
        };
        let source = self.vault.settings.login.source();
        let address = self.http.address();
        if left < reserve && !matches!(self.vault.settings.login, Login::TokenFile(_)) {
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

    /// Why the token has an end that vsync can't move; `None` if it has none, or can be replaced.
    fn why_it_ends(&self, life: &Life) -> Option<&'static str> {
        life.expires?;
        match &self.vault.settings.login {
            login if login.can_be_repeated() => None,
            _ if !self.vault.settings.renew_token => Some("`renewToken` is false"),
            _ if !life.renewable => Some("it can't be renewed"),
            _ if life.is_capped => Some("it has reached its maximum lifetime"),
            _ => None,
        }
    }

    /// How long it is until something can be done for the token; `None` if nothing can, or need.
    fn due(&self) -> Option<Duration> {
        let life = self.life();
        match self.why_it_ends(&life) {
            Some(_) => None,
            None => life.due(),
        }
    }

    /// Renews the token, or logs in again where it can't be renewed any more.
    fn prolong(&self, life: &mut Life) -> Result<()> {
        if self.vault.settings.renew_token && life.renewable && !life.is_capped {
            let asked = Instant::now();
            let reply = self.send_with(Some(&self.token()?), Method::Post, "auth/token/renew-self", Some(b"{}"))?;
            match reply.status {
                200 => {
                    let renewal = login::auth(&reply.body)?.life(asked);
                    let renewed = life.renewed(renewal);
                    self.begin(life, renewed);
                    return Ok(());
                }
                400 | 403 => life.is_capped = true,
                // A certificate's token is renewed only over a connection with the same certificate.
                500 if self.vault.settings.login.can_be_repeated() => {}
                _ => return Err(super::answer::refusal(&reply)),
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

    fn life(seconds: u64) -> Life {
        Life::new(Instant::now(), Some(Duration::from_secs(seconds)), true)
    }

    #[test]
    fn a_renewal_that_gives_less_than_before_is_the_last() {
        // As a server answers that caps what it gives (FACTS.md section 8).
        for (given, capped) in [
            (&[60, 60, 60][..], false),
            (&[60, 59, 60], false),
            (&[60, 600, 600], false),
        ] {
            let end = given[1..]
                .iter()
                .fold(life(given[0]), |before, next| before.renewed(life(*next)));
            assert_eq!(end.is_capped, capped, "{given:?}");
        }
        for given in [&[60, 30][..], &[60, 600, 599, 300], &[3, 1], &[1, 0]] {
            let end = given[1..]
                .iter()
                .fold(life(given[0]), |before, next| before.renewed(life(*next)));
            assert!(end.is_capped, "{given:?}");
        }
    }

    #[test]
    fn it_is_due_at_half_of_what_remained() {
        assert!(!life(60).is_due());
        let ago = Instant::now().checked_sub(Duration::from_secs(31)).unwrap();
        assert!(Life::new(ago, Some(Duration::from_secs(60)), true).is_due());
        assert!(!Life::new(ago, None, false).is_due(), "it never expires");
    }

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
