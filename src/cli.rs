//! The command line: arguments become an [`Invocation`], or a text to print.
//!
//! Pure: nothing is read here but the arguments. The parser works by the tables of [`table`], from which the help
//! texts and the suggestions are made too; config keys are flags as well and come from the config's own table.
//! Help and version are answered without looking at any config. What a user typed as a value is never repeated in
//! a message, since it may be a secret in the wrong place.

pub mod table;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::keys::{self, Found, explain_unknown, shown};
use crate::config::nearest::nearest;
use crate::config::{Needs, kind};
use crate::error::{Error, Kind, Result, fail};
use table::{COMMANDS, CommandRow, FLAGS, Flag, FlagId, command_help, general_help, version};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Run a command.
    Run(Invocation),
    /// Print this and be done: help, or the version.
    Print(String),
}

/// A command with its flags.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// The config file that was named.
    pub config_file: Option<PathBuf>,
    /// Run one cycle and exit; also set by a dry run.
    pub once: bool,
    /// Write nothing.
    pub dry_run: bool,
    /// The form of what goes to stdout.
    pub output: Output,
    /// Allow what looks like a loss of everything.
    pub allow_mass_delete: bool,
    /// Trust nothing that is known about a destination.
    pub full: bool,
    /// Remove orphans.
    pub prune: bool,
    /// Show where paths on stdin lead, instead of a plan.
    pub transforms: bool,
    /// Mend what a comparison finds.
    pub repair: bool,
    /// Show what is equal, too.
    pub all: bool,
    /// Compare only this share of the secrets, in hundredths of a per cent.
    pub sample: Option<u16>,
    /// Config keys given as flags: dotted names with their values.
    pub overrides: Vec<(String, String)>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The origin's cycle, then every destination's.
    Sync,
    /// The origin role only.
    Origin,
    /// The destination roles only.
    Destination,
    /// The startup checks only.
    Check,
    /// What the next destination cycles would do.
    Plan,
    /// A comparison of the secrets themselves.
    Verify,
    /// What the sync info says.
    Status,
    /// Serve the local read replica.
    Replica,
}

impl Command {
    /// What the command needs of a sync's config; `None` for the replica, which has its own.
    pub fn needs(self) -> Option<Needs> {
        match self {
            Command::Sync | Command::Check | Command::Status => Some(Needs::Held),
            Command::Origin => Some(Needs::Origin),
            Command::Destination | Command::Plan | Command::Verify => Some(Needs::Destinations),
            Command::Replica => None,
        }
    }

    /// Whether it ends by itself, in no case runs on.
    fn is_look(self) -> bool {
        matches!(self, Command::Plan | Command::Verify | Command::Status)
    }

    fn row(self) -> &'static CommandRow {
        COMMANDS.iter().find(|row| row.command == self).unwrap_or(&COMMANDS[0])
    }
}

/// The form of what goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const SEE_HELP: &str = "see `vsync help`";

/// Reads the arguments, without the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed> {
    let mut words = VecDeque::new();
    for (index, arg) in args.into_iter().enumerate() {
        match arg.into_string() {
            Ok(word) => words.push_back(word),
            Err(_) => return usage(format!("argument {} is not UTF-8", index + 1)),
        }
    }
    if words.front().is_some_and(|word| word == "help") {
        words.pop_front();
        return help_about(words.make_contiguous()).map(Parsed::Print);
    }
    Parser::new(words).run()
}

fn usage<T>(message: impl Into<String>) -> Result<T> {
    fail(Kind::Config, message)
}

struct Parser {
    words: VecDeque<String>,
    command: Option<Command>,
    seen: Vec<&'static Flag>,
    answer: Option<FlagId>,
    config_file: Option<PathBuf>,
    output: Output,
    sample: Option<u16>,
    overrides: Vec<(String, String)>,
}

impl Parser {
    fn new(words: VecDeque<String>) -> Parser {
        Parser {
            words,
            command: None,
            seen: Vec::new(),
            answer: None,
            config_file: None,
            output: Output::Text,
            sample: None,
            overrides: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Parsed> {
        while let Some(word) = self.words.pop_front() {
            if word == "--" {
                while let Some(word) = self.words.pop_front() {
                    self.take_command(&word)?;
                }
            } else if let Some(long) = word.strip_prefix("--") {
                self.take_long(long)?;
            } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                self.take_letters(letters)?;
            } else {
                self.take_command(&word)?;
            }
            match self.answer {
                Some(FlagId::Version) => return Ok(Parsed::Print(version())),
                Some(_) => return Ok(Parsed::Print(self.help())),
                None => (),
            }
        }
        self.finish().map(Parsed::Run)
    }

    /// `vsync sync --help` and `vsync --help sync` are the same.
    fn help(&self) -> String {
        let later = || self.words.iter().find_map(|word| command(word));
        match self.command.or_else(later) {
            Some(command) => command_help(command.row()),
            None => general_help(),
        }
    }

    fn take_command(&mut self, word: &str) -> Result<()> {
        if self.command.is_some() {
            return usage(format!("there is more than one command; {SEE_HELP}"));
        }
        self.command = command(word);
        match self.command {
            Some(_) => Ok(()),
            None => usage(explain_command(word)),
        }
    }

    fn take_long(&mut self, long: &str) -> Result<()> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        if let Some(flag) = FLAGS.iter().find(|flag| flag.long == name) {
            return self.take_flag(flag, value);
        }
        match keys::find(name) {
            Some(found) => self.take_key(&found, name, value),
            None => usage(explain_flag(name)),
        }
    }

    /// `-n`, `-c FILE`, `-cFILE`, `-nc FILE`.
    fn take_letters(&mut self, letters: &str) -> Result<()> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            let Some(flag) = FLAGS.iter().find(|flag| flag.short == Some(letter)) else {
                return usage(format!("unknown flag -{}; {SEE_HELP}", shown(&letter.to_string())));
            };
            let value = rest.as_str();
            if flag.value.is_some() && !value.is_empty() {
                let value = value.strip_prefix('=').unwrap_or(value);
                return self.take_flag(flag, Some(value.to_owned()));
            }
            self.take_flag(flag, None)?;
        }
        Ok(())
    }

    fn take_flag(&mut self, flag: &'static Flag, value: Option<String>) -> Result<()> {
        let name = flag.long;
        let value = match (flag.value, value) {
            (None, Some(_)) => return usage(format!("--{name} takes no value")),
            (None, None) => String::new(),
            (Some(_), value) => self.value_of(name, value)?,
        };
        if flag.value.is_some() && self.is_seen(flag.id) {
            return usage(format!("--{name} is given twice"));
        }
        self.seen.push(flag);
        match flag.id {
            FlagId::Version | FlagId::Help => self.answer = self.answer.or(Some(flag.id)),
            FlagId::Config if value.is_empty() => return usage("--config needs a value"),
            FlagId::Config => self.config_file = Some(value.into()),
            FlagId::Output => {
                self.output = match value.as_str() {
                    "text" => Output::Text,
                    "json" => Output::Json,
                    _ => return usage("--output must be text or json"),
                };
            }
            FlagId::Sample => self.sample = Some(share(&value)?),
            _ => (),
        }
        Ok(())
    }

    fn take_key(&mut self, found: &Found, name: &str, value: Option<String>) -> Result<()> {
        if found.key.kind.is_secret() {
            return usage(explain_secret(found, name));
        }
        let value = match (&found.key.kind, value) {
            // Given bare it means true; `--renewToken false` is understood as well, no command is called so.
            (kind::Kind::Bool, None) => match self.words.front().map(String::as_str) {
                Some("true" | "false") => self.words.pop_front().unwrap_or_default(),
                _ => "true".to_owned(),
            },
            (_, value) => self.value_of(name, value)?,
        };
        let is_list = matches!(found.key.kind, kind::Kind::Mounts | kind::Kind::Regexes);
        if self.overrides.iter().any(|(earlier, _)| earlier == name) {
            let hint = if is_list {
                ", separate the items with commas"
            } else {
                ""
            };
            return usage(format!("--{name} is given twice{hint}"));
        }
        self.overrides.push((name.to_owned(), value));
        Ok(())
    }

    /// The value after `=`, or else the next argument, unless that is a flag.
    fn value_of(&mut self, name: &str, value: Option<String>) -> Result<String> {
        if let Some(value) = value {
            return Ok(value);
        }
        match self.words.pop_front() {
            Some(word) if !word.starts_with('-') => Ok(word),
            _ => usage(format!(
                "--{name} needs a value (one that starts with - is written --{name}=...)"
            )),
        }
    }

    fn is_seen(&self, id: FlagId) -> bool {
        self.seen.iter().any(|flag| flag.id == id)
    }

    fn finish(self) -> Result<Invocation> {
        let command = self.command.unwrap_or(COMMANDS[0].command);
        if let Some(flag) = self.seen.iter().find(|flag| !flag.commands.contains(&command)) {
            let names: Vec<_> = flag.commands.iter().map(|command| command.row().name).collect();
            let (long, name) = (flag.long, command.row().name);
            return usage(format!(
                "--{long} does not belong to `vsync {name}`, only to {}",
                names.join(", ")
            ));
        }
        let dry_run = self.is_seen(FlagId::DryRun);
        Ok(Invocation {
            command,
            once: dry_run || command.is_look() || self.is_seen(FlagId::Once),
            dry_run,
            allow_mass_delete: self.is_seen(FlagId::AllowMassDelete),
            full: self.is_seen(FlagId::Full),
            prune: self.is_seen(FlagId::Prune),
            transforms: self.is_seen(FlagId::Transforms),
            repair: self.is_seen(FlagId::Repair),
            all: self.is_seen(FlagId::All),
            sample: self.sample,
            config_file: self.config_file,
            output: self.output,
            overrides: self.overrides,
        })
    }
}

/// A share such as `10%` or `0.5`, in hundredths of a per cent.
fn share(text: &str) -> Result<u16> {
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '%'));
    let percent = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    let hundredths = percent.map(|percent| percent * 100.0).filter(|_| is_plain);
    match hundredths {
        Some(share) if (1.0..=10_000.0).contains(&share) => Ok(share.round() as u16),
        _ => usage("--sample must be a share from 0.01% to 100%, such as 10%"),
    }
}

fn command(word: &str) -> Option<Command> {
    COMMANDS.iter().find(|row| row.name == word).map(|row| row.command)
}

/// A word that does not look like a command is not repeated: it may have been meant as a secret's value.
fn explain_command(word: &str) -> String {
    let is_word = word.len() <= 20 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    if !is_word {
        return format!("an argument is neither a command nor a flag; {SEE_HELP}");
    }
    let names: Vec<_> = COMMANDS.iter().map(|row| row.name).chain(["help"]).collect();
    match nearest(word, names.iter().map(|name| (*name).to_owned())) {
        Some(known) => format!("unknown command {word}, did you mean {known}?"),
        None => format!("unknown command {word}; the commands are {}", names.join(", ")),
    }
}

fn explain_flag(name: &str) -> String {
    if name.contains('.') {
        return format!("--{}", explain_unknown(name));
    }
    let flags = FLAGS.iter().map(|flag| flag.long.to_owned());
    let (place, _) = keys::split(name);
    let names = keys::names_near(place)
        .into_iter()
        .filter(|name| keys::find(name).is_some());
    match nearest(name, flags.chain(names)) {
        Some(known) => format!("unknown flag --{}, did you mean --{known}?", shown(name)),
        None if keys::find(&format!("origin.{name}")).is_some() => {
            format!("--{}", explain_unknown(name))
        }
        None => format!("unknown flag --{}; {SEE_HELP}", shown(name)),
    }
}

fn explain_secret(found: &Found, name: &str) -> String {
    let (variable, dotted) = (found.variable(), found.dotted());
    format!(
        "--{name}: a secret is not taken as a flag, since other users could see it there; set the variable \
         {variable} or the key {dotted} of the config file"
    )
}

fn help_about(words: &[String]) -> Result<String> {
    match words {
        [] => Ok(general_help()),
        [word] if word == "config" => Ok(keys::help()),
        [word] if word == "help" => Ok(general_help()),
        [word] => match command(word) {
            Some(command) => Ok(command_help(command.row())),
            None => Err(Error::new(Kind::Config, explain_command(word))),
        },
        _ => usage("help takes one command, or `config`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{KEYS, Place, Section};

    fn parse_line(line: &str) -> Result<Parsed> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn invocation(line: &str) -> Invocation {
        match parse_line(line) {
            Ok(Parsed::Run(invocation)) => invocation,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn printed(line: &str) -> String {
        match parse_line(line) {
            Ok(Parsed::Print(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_and_flags() {
        let plain = || invocation("");
        assert_eq!(
            plain(),
            Invocation {
                command: Command::Sync,
                config_file: None,
                once: false,
                dry_run: false,
                output: Output::Text,
                allow_mass_delete: false,
                full: false,
                prune: false,
                transforms: false,
                repair: false,
                all: false,
                sample: None,
                overrides: Vec::new(),
            }
        );
        let look = |command| Invocation {
            command,
            once: true,
            ..plain()
        };
        let file = || Some(PathBuf::from("a.json"));
        let cases = [
            ("sync", plain()),
            (
                "origin",
                Invocation {
                    command: Command::Origin,
                    ..plain()
                },
            ),
            (
                "--once destination",
                Invocation {
                    command: Command::Destination,
                    once: true,
                    ..plain()
                },
            ),
            (
                "-- check",
                Invocation {
                    command: Command::Check,
                    ..plain()
                },
            ),
            (
                "-c a.json",
                Invocation {
                    config_file: file(),
                    ..plain()
                },
            ),
            (
                "-ca.json",
                Invocation {
                    config_file: file(),
                    ..plain()
                },
            ),
            (
                "-c=a.json",
                Invocation {
                    config_file: file(),
                    ..plain()
                },
            ),
            (
                "--config=a.json",
                Invocation {
                    config_file: file(),
                    ..plain()
                },
            ),
            (
                "-n",
                Invocation {
                    once: true,
                    dry_run: true,
                    ..plain()
                },
            ),
            (
                "--dry-run --once",
                Invocation {
                    once: true,
                    dry_run: true,
                    ..plain()
                },
            ),
            (
                "-no json",
                Invocation {
                    once: true,
                    dry_run: true,
                    output: Output::Json,
                    ..plain()
                },
            ),
            ("--output text", plain()),
            ("status", look(Command::Status)),
            (
                "plan --transforms",
                Invocation {
                    transforms: true,
                    ..look(Command::Plan)
                },
            ),
            (
                "verify --repair --all --sample 0.5%",
                Invocation {
                    repair: true,
                    all: true,
                    sample: Some(50),
                    ..look(Command::Verify)
                },
            ),
            (
                "verify --sample=10",
                Invocation {
                    sample: Some(1000),
                    ..look(Command::Verify)
                },
            ),
            (
                "origin --allow-mass-delete",
                Invocation {
                    command: Command::Origin,
                    allow_mass_delete: true,
                    ..plain()
                },
            ),
            (
                "--full --prune",
                Invocation {
                    full: true,
                    prune: true,
                    ..plain()
                },
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(invocation(line), expected, "{line}");
        }
    }

    #[test]
    fn config_keys_are_flags() {
        for (line, overrides) in [
            (
                "--origin.vault.address http://a",
                &[("origin.vault.address", "http://a")][..],
            ),
            (
                "--origin.vault.address=http://a=b",
                &[("origin.vault.address", "http://a=b")],
            ),
            ("--destinations.0.tick 5m", &[("destinations.0.tick", "5m")]),
            ("--destination.exclude=-x", &[("destination.exclude", "-x")]),
            ("--ignoreDeletes origin", &[("ignoreDeletes", "true")]),
            ("--ignoreDeletes false origin", &[("ignoreDeletes", "false")]),
            (
                "--ignoreDeletes=false --numBuckets 3",
                &[("ignoreDeletes", "false"), ("numBuckets", "3")],
            ),
            ("--origin.renewToken --once", &[("origin.renewToken", "true")]),
            ("--origin.dataPaths=a/,b/", &[("origin.dataPaths", "a/,b/")]),
        ] {
            let found = invocation(line).overrides;
            let found: Vec<_> = found
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            assert_eq!(found, overrides, "{line}");
        }
    }

    #[test]
    fn mistakes_say_what_to_do() {
        for (line, text) in [
            (
                "compare",
                "unknown command compare; the commands are sync, origin, destination, check, plan, verify, status, replica, help",
            ),
            (
                "verify --sample lots",
                "--sample must be a share from 0.01% to 100%, such as 10%",
            ),
            (
                "verify --sample 0%",
                "--sample must be a share from 0.01% to 100%, such as 10%",
            ),
            (
                "verify --sample=101%",
                "--sample must be a share from 0.01% to 100%, such as 10%",
            ),
            (
                "verify --sample 1e1",
                "--sample must be a share from 0.01% to 100%, such as 10%",
            ),
            (
                "sync --repair",
                "--repair does not belong to `vsync sync`, only to verify",
            ),
            (
                "verify --dry-run",
                "--dry-run does not belong to `vsync verify`, only to sync, origin, destination",
            ),
            ("orgin", "unknown command orgin, did you mean origin?"),
            ("help orgin", "unknown command orgin, did you mean origin?"),
            ("hvs.X", "an argument is neither a command nor a flag; see `vsync help`"),
            ("sync origin", "there is more than one command; see `vsync help`"),
            ("help sync origin", "help takes one command, or `config`"),
            ("--dryrun", "unknown flag --dryrun, did you mean --dry-run?"),
            (
                "--numbuckets 3",
                "unknown flag --numbuckets, did you mean --numBuckets?",
            ),
            ("--token=hvs.X", "unknown flag --token; see `vsync help`"),
            (
                "--tick 5m",
                "--tick: no top-level key, write origin.tick and, for a destination, destination.tick",
            ),
            (
                "--origin.vault.adress=a",
                "--origin.vault.adress: unknown key, did you mean origin.vault.address?",
            ),
            (
                "--destinations.3.vault.adress a",
                "--destinations.3.vault.adress: unknown key, did you mean destinations.3.vault.address?",
            ),
            ("--origin.dc dc1", "--origin.dc: no longer read, write origin.consul.dc"),
            ("-x", "unknown flag -x; see `vsync help`"),
            ("--once=yes", "--once takes no value"),
            (
                "--config",
                "--config needs a value (one that starts with - is written --config=...)",
            ),
            ("--config=", "--config needs a value"),
            (
                "-c --once",
                "--config needs a value (one that starts with - is written --config=...)",
            ),
            (
                "--numBuckets",
                "--numBuckets needs a value (one that starts with - is written --numBuckets=...)",
            ),
            ("-o xml", "--output must be text or json"),
            ("-c a -c b", "--config is given twice"),
            (
                "--origin.mounts a/ --origin.mounts b/",
                "--origin.mounts is given twice, separate the items with commas",
            ),
            (
                "origin --prune",
                "--prune does not belong to `vsync origin`, only to sync, destination, plan",
            ),
            (
                "check --once",
                "--once does not belong to `vsync check`, only to sync, origin, destination",
            ),
            (
                "check -n",
                "--dry-run does not belong to `vsync check`, only to sync, origin, destination",
            ),
        ] {
            let error = parse_line(line).expect_err(line);
            assert_eq!(
                (error.to_string().as_str(), error.kind()),
                (text, Kind::Config),
                "{line}"
            );
        }
    }

    #[test]
    fn secrets_are_refused_as_flags_and_every_other_key_is_one() {
        for key in KEYS {
            let place = match key.section {
                Section::Top => Place::Top,
                Section::Origin => Place::Origin,
                Section::End | Section::Destination => Place::Destination(Some(1)),
            };
            let dotted = place.dotted(key.name);
            for line in [
                format!("--{dotted} hvs.SECRETMARK"),
                format!("--{dotted}=hvs.SECRETMARK"),
            ] {
                let answer = parse_line(&line);
                if key.kind.is_secret() {
                    let message = answer.expect_err(&line).to_string();
                    assert!(
                        message.contains(&dotted) && message.contains(&place.variable(key.name)),
                        "{message}"
                    );
                    assert!(!message.contains("SECRETMARK"), "{message}");
                } else if !matches!(key.kind, kind::Kind::Bool) {
                    assert!(matches!(answer, Ok(Parsed::Run(_))), "{line}");
                }
            }
        }
        for name in ["origin.vault.secret_id", "origin.vault.tokn", "tokn", "output", "once"] {
            for line in [format!("--{name}=hvs.SECRETMARK"), format!("--{name} hvs.SECRETMARK")] {
                let message = parse_line(&line).expect_err(&line).to_string();
                assert!(!message.contains("SECRETMARK"), "{message}");
            }
        }
    }

    #[test]
    fn help_and_version_win_over_everything_after_them() {
        assert_eq!(printed("--version"), format!("vsync {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(printed("origin --prune -V --nonsense"), printed("-V"));
        let general = printed("help");
        for (row, flag) in COMMANDS.iter().zip(FLAGS) {
            assert!(general.contains(row.summary) && general.contains(flag.help));
            let help = printed(&format!("help {}", row.name));
            assert!(help.contains(row.details), "{help}");
            assert_eq!(printed(&format!("{} -h", row.name)), help);
            assert_eq!(printed(&format!("--help {}", row.name)), help);
            for flag in FLAGS {
                let is_shown = help.contains(&format!("--{} ", flag.long));
                assert_eq!(
                    is_shown,
                    flag.commands.contains(&row.command),
                    "{} {}",
                    row.name,
                    flag.long
                );
            }
        }
        assert_eq!(
            (printed("-h"), printed("help help")),
            (general.clone(), general.clone())
        );
        assert_eq!(printed("help config"), keys::help());
        assert!(general.lines().all(|line| line.len() <= 120));
    }

    #[test]
    fn arguments_that_are_not_utf8_are_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let args = [OsString::from("--once"), OsString::from_vec(vec![0xff])];
        assert_eq!(parse(args).unwrap_err().to_string(), "argument 2 is not UTF-8");
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(words in proptest::collection::vec("(-|--|help|sync|--origin[.]tick=?)?.{0,4}", 0..5)) {
            if let Err(error) = parse(words.into_iter().map(OsString::from)) {
                assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
