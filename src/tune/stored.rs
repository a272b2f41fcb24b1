//! A calibration as text that parses back: a line a fact, words and quoted strings.

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use super::data::{Calibration, Outcome, Row, SizeResult};
use super::key::CalibrationKey;
use super::route_config::RouteConfig;
use super::timing::Timing;
use crate::error::{Api, Error, Invalid, Mismatch, Missing, Result, Text};

/// What the text begins with; the version follows.
const MAGIC: &str = "gpu-interop calibration";
/// Raised when older texts can't be read any more.
const VERSION: u32 = 1;

/// The APIs by the words they are stored as.
const APIS: [(Api, &str); 5] = [
    (Api::Vulkan, "vulkan"),
    (Api::OpenGl, "gl"),
    (Api::Cuda, "cuda"),
    (Api::Egl, "egl"),
    (Api::Linux, "linux"),
];

impl Calibration {
    /// The calibration as text, to be kept in a file. It begins with a version; [`FromStr`] reads it
    /// back, and gives an equal calibration.
    pub fn to_stored(&self) -> String {
        let mut text = format!("{MAGIC} {VERSION}\n");
        let CalibrationKey { device, driver, name, stations } = &self.subject;
        let driver = driver.map_or_else(|| "none".into(), |uuid| uuid.to_string());
        let mut line = |words: &[&dyn std::fmt::Display]| {
            for (at, word) in words.iter().enumerate() {
                // Writing to a String does not fail.
                let _ = write!(text, "{}{word}", if at == 0 { "" } else { " " });
            }
            text.push('\n');
        };
        line(&[&"device", device, &quoted(name)]);
        line(&[&"driver", &driver]);
        let stations: Vec<_> = stations.iter().map(|station| word_of(*station)).collect();
        line(&[&"stations", &stations.join(" ")]);
        line(&[&"noise", &self.noise]);
        for size in &self.sizes {
            line(&[&"payload", &size.payload_bytes]);
            for Row { candidate, outcome } in &size.rows {
                match outcome {
                    Outcome::Measured(Timing { median, p99, rounds, turns }) => line(&[
                        &"measured",
                        candidate,
                        &"median_ns",
                        &median.as_nanos(),
                        &"p99_ns",
                        &p99.as_nanos(),
                        &"rounds",
                        rounds,
                        &"turns",
                        turns,
                    ]),
                    Outcome::Missing(Missing { api, what, needed_for, help }) => line(&[
                        &"missing",
                        candidate,
                        &word_of(*api),
                        &quoted(what),
                        &quoted(needed_for),
                        &help.as_ref().map_or_else(|| "none".into(), |help| quoted(help)),
                    ]),
                    Outcome::Failed(error) => line(&[&"failed", candidate, &quoted(error)]),
                    Outcome::Skipped(why) => line(&[&"not-tried", candidate, &quoted(why)]),
                }
            }
        }
        line(&[&"end"]);
        text
    }
}

impl FromStr for Calibration {
    type Err = Error;

    /// Reads what [`to_stored`](Calibration::to_stored) wrote.
    ///
    /// # Errors
    /// [`Mismatch`] for another version, [`Invalid`] with the number of the line for anything else.
    fn from_str(text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate();
        let first = lines.next().map_or("", |(_, line)| line);
        let version = first.strip_prefix(MAGIC).ok_or_else(|| {
            Invalid::new("calibration", "is no stored calibration")
                .help("give what Calibration::to_stored wrote, all of it")
        })?;
        if version.trim() != VERSION.to_string() {
            let field = "the version of the stored calibration";
            return Err(Mismatch::new(field, VERSION, version.trim())
                .help("calibrate again")
                .into());
        }
        let mut parsed = Parsed::default();
        for (at, line) in lines {
            parsed.line(line).map_err(|problem| {
                let what = format!("line {}: {problem}", at + 1);
                Invalid::new("calibration", what).help("store it again, or calibrate again")
            })?;
        }
        parsed.finish().ok_or_else(|| {
            Invalid::new("calibration", "is not whole").help("store all of its text").into()
        })
    }
}

/// What has been read so far.
#[derive(Default)]
struct Parsed {
    device: Option<(crate::Uuid, String)>,
    driver: Option<Option<crate::Uuid>>,
    stations: Option<Vec<Api>>,
    noise: Option<f64>,
    sizes: Vec<SizeResult>,
    is_whole: bool,
}

impl Parsed {
    fn finish(self) -> Option<Calibration> {
        let (device, name) = self.device?;
        let (driver, stations, noise) = (self.driver?, self.stations?, self.noise?);
        let subject = CalibrationKey { device, driver, name, stations };
        self.is_whole.then_some(Calibration { subject, noise, sizes: self.sizes })
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if self.is_whole {
            return if line.trim().is_empty() { Ok(()) } else { Err("text after the end".into()) };
        }
        let mut words = Words { rest: line };
        match &*words.word()? {
            "device" => self.device = Some((words.parse()?, words.word()?)),
            "driver" => {
                let driver = words.word()?;
                let uuid = (driver != "none").then(|| parse(&driver)).transpose()?;
                self.driver = Some(uuid);
            }
            "stations" => {
                let mut stations = Vec::new();
                while !words.is_empty() {
                    stations.push(api(&words.word()?)?);
                }
                self.stations = Some(stations);
            }
            "noise" => {
                let noise: f64 = words.parse()?;
                if !(noise.is_finite() && noise >= 0.0) {
                    return Err(format!("a noise of {noise}"));
                }
                self.noise = Some(noise);
            }
            "payload" => {
                let (payload_bytes, rows) = (words.parse()?, Vec::new());
                self.sizes.push(SizeResult { payload_bytes, rows });
            }
            "end" => self.is_whole = true,
            kind => {
                let candidate: RouteConfig = words.parse()?;
                let outcome = outcome(kind, &mut words)?;
                let size = self.sizes.last_mut().ok_or("a candidate before any payload")?;
                if size.rows.iter().any(|row| row.candidate == candidate) {
                    return Err(format!("{candidate} a second time"));
                }
                size.rows.push(Row { candidate, outcome });
            }
        }
        if words.is_empty() { Ok(()) } else { Err(format!("too much: {}", words.rest)) }
    }
}

fn outcome(kind: &str, words: &mut Words<'_>) -> Result<Outcome, String> {
    Ok(match kind {
        "measured" => Outcome::Measured(Timing {
            median: Duration::from_nanos(words.field("median_ns")?),
            p99: Duration::from_nanos(words.field("p99_ns")?),
            rounds: words.field("rounds")?,
            turns: words.field("turns")?,
        }),
        "missing" => {
            let api = api(&words.word()?)?;
            let (what, needed_for) = (words.word()?.into(), words.word()?.into());
            let help = if words.rest.trim_start().starts_with('"') {
                Some(Text::from(words.word()?))
            } else {
                words.expect("none")?;
                None
            };
            Outcome::Missing(Missing { api, what, needed_for, help })
        }
        "failed" => Outcome::Failed(words.word()?),
        "not-tried" => Outcome::Skipped(words.word()?),
        other => return Err(format!("'{other}' means nothing")),
    })
}

/// The words of a line, of which some are quoted.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    fn is_empty(&self) -> bool {
        self.rest.trim_start().is_empty()
    }

    fn word(&mut self) -> Result<String, String> {
        let text = self.rest.trim_start();
        let Some(quoted) = text.strip_prefix('"') else {
            let end = text.find(' ').unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            self.rest = rest;
            return if word.is_empty() { Err("a word is missing".into()) } else { Ok(word.into()) };
        };
        let mut word = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Ok(word);
                }
                '\\' => match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => word.push('\n'),
                    Some('r') => word.push('\r'),
                    Some(escaped @ ('"' | '\\')) => word.push(escaped),
                    _ => return Err("a backslash before nothing that has one".into()),
                },
                other => word.push(other),
            }
        }
        Err("a quote that does not end".into())
    }

    fn parse<T: FromStr>(&mut self) -> Result<T, String> {
        parse(&self.word()?)
    }

    fn expect(&mut self, name: &str) -> Result<(), String> {
        let word = self.word()?;
        if word == name { Ok(()) } else { Err(format!("'{word}' where '{name}' is due")) }
    }

    fn field<T: FromStr>(&mut self, name: &str) -> Result<T, String> {
        self.expect(name)?;
        self.parse()
    }
}

fn parse<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("'{word}' is out of place"))
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped.replace('\n', "\\n").replace('\r', "\\r"))
}

fn word_of(api: Api) -> &'static str {
    APIS.iter().find(|(known, _)| *known == api).map_or("unknown", |(_, word)| word)
}

fn api(word: &str) -> Result<Api, String> {
    let known = APIS.iter().find(|(_, known)| *known == word);
    known.map(|(api, _)| *api).ok_or_else(|| format!("'{word}' is no API"))
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
