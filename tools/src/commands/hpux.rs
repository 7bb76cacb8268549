//! The HP-UX spelling of options: one dash before a whole word.

use clap::Command;
use std::collections::BTreeSet;
use std::ffi::OsString;

/// The arguments as clap wants them, with the name of the command before them: `-spd_soft 20`
/// becomes `--spd_soft 20`.
///
/// A word after one dash is an option of that name. `-pTCP`, where `-p` is an option of one
/// letter and `-pTCP` is none, stays what it is in GNU spelling. What comes after `--` is left alone.
#[must_use]
pub fn gnu_spelling(command: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let known = Names::of(command);
    let mut out = vec![OsString::from(command.get_name())];
    let mut args = args.into_iter();
    for arg in args.by_ref() {
        let last = arg == "--";
        out.push(known.respell(arg));
        if last {
            break;
        }
    }
    out.extend(args);
    out
}

#[derive(Default)]
struct Names {
    long: BTreeSet<String>,
    short: BTreeSet<char>,
}

impl Names {
    fn of(command: &Command) -> Self {
        let mut names = Self::default();
        names.add(command);
        names.long.extend(["help", "version"].map(String::from));
        names
    }

    fn add(&mut self, command: &Command) {
        for arg in command.get_arguments() {
            self.long.extend(arg.get_long().map(String::from));
            self.long.extend(arg.get_all_aliases().unwrap_or_default().into_iter().map(String::from));
            self.short.extend(arg.get_short());
            self.short.extend(arg.get_all_short_aliases().unwrap_or_default());
        }
        command.get_subcommands().for_each(|s| self.add(s));
    }

    fn respell(&self, arg: OsString) -> OsString {
        let Some(word) = arg.to_str().and_then(|a| a.strip_prefix('-')) else { return arg };
        let mut letters = word.chars();
        let (first, more) = (letters.next(), letters.next().is_some());
        let name = word.split('=').next().unwrap_or(word);
        let one_letter = first.is_some_and(|c| self.short.contains(&c));
        let is_word = more && first.is_some_and(char::is_alphabetic);
        // An unknown word is respelled too, so that the error shows all of it.
        if self.long.contains(name) || (is_word && !one_letter) { format!("--{word}").into() } else { arg }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction};

    fn respelled(args: &[&str]) -> Vec<String> {
        let command = Command::new("tool")
            .arg(Arg::new("sad").long("sad").action(ArgAction::SetTrue))
            .arg(Arg::new("sa").long("sa"))
            .arg(Arg::new("soft").long("spd_soft").alias("spd-soft"))
            .arg(Arg::new("protocol").short('p').long("protocol"))
            .arg(Arg::new("verbose").short('v').action(ArgAction::SetTrue))
            .subcommand(Command::new("check").arg(Arg::new("deep").long("deep")));
        let out = gnu_spelling(&command, args.iter().map(OsString::from).collect());
        assert_eq!(out[0], "tool");
        out[1..].iter().map(|a| a.to_str().unwrap().to_string()).collect()
    }

    #[test]
    fn words_after_one_dash_are_options() {
        assert_eq!(respelled(&["-sad", "-sa", "ike"]), ["--sad", "--sa", "ike"]);
        assert_eq!(respelled(&["-spd_soft", "20", "-spd-soft=20"]), ["--spd_soft", "20", "--spd-soft=20"]);
        assert_eq!(
            respelled(&["check", "-deep", "x", "-help", "-version"]),
            ["check", "--deep", "x", "--help", "--version"]
        );
    }

    #[test]
    fn gnu_spelling_stays() {
        let gnu = ["--sad", "--sa=ike", "-p", "TCP", "-v", "-pTCP", "-", "x-y"];
        assert_eq!(respelled(&gnu), gnu);
    }

    #[test]
    fn numbers_are_not_options() {
        assert_eq!(respelled(&["-spd_soft", "-1", "-10"]), ["--spd_soft", "-1", "-10"]);
    }

    #[test]
    fn unknown_words_keep_together_and_known_ones_win_over_letters() {
        assert_eq!(respelled(&["-traceon"]), ["--traceon"]);
        assert_eq!(respelled(&["-protocol", "6"]), ["--protocol", "6"]);
    }

    #[test]
    fn what_follows_two_dashes_is_left_alone() {
        assert_eq!(respelled(&["-sad", "--", "-sad"]), ["--sad", "--", "-sad"]);
    }
}
