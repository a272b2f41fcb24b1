//! Counts the frames that a consumer received: verified, lost, doubled or torn.

use std::fmt;

use gpu_interop::error::counted;

/// The result of checking one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCheck {
    /// Words that are right.
    pub right: u64,
    /// Words that are wrong.
    pub wrong: u64,
    /// Index of the first wrong word.
    pub first_wrong: u32,
}

impl FrameCheck {
    /// Whether all of a frame's `words` were checked and are right.
    pub fn is_whole(&self, words: u64) -> bool {
        self.wrong == 0 && self.right == words
    }
}

impl fmt::Display for FrameCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, wrong, first_wrong } = self;
        let wrong = counted(*wrong, "wrong word");
        write!(f, "{} and {wrong}, the first at {first_wrong}", counted(*right, "right word"))
    }
}

/// Counts frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Frames received.
    pub frames: u64,
    /// Frames received of which every word was checked and is right.
    pub verified: u64,
    /// Frames missing before one that was received.
    pub lost: u64,
    /// Frames received again, or after a later one.
    pub doubled: u64,
    /// Frames with a wrong word, or whose slot was withdrawn meanwhile.
    pub torn: u64,
    last: Option<u64>,
}

impl FrameStats {
    /// Counts frame number `frame`, which is completely right or not.
    pub fn count(&mut self, frame: u64, is_whole: bool) {
        self.frames += 1;
        match self.last {
            Some(last) if frame <= last => {
                self.doubled += 1;
                return;
            }
            Some(last) => self.lost += frame - last - 1,
            // A consumer that joins later has lost nothing.
            None => {}
        }
        self.last = Some(frame);
        match is_whole {
            true => self.verified += 1,
            false => self.torn += 1,
        }
    }

    /// The number that the next frame should have; `None` before the first.
    pub fn next(&self) -> Option<u64> {
        self.last.map(|last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(frames: &[(u64, bool)]) -> (u64, u64, u64, u64, u64) {
        let mut stats = FrameStats::default();
        frames.iter().for_each(|&(frame, is_whole)| stats.count(frame, is_whole));
        let FrameStats { frames, verified, lost, doubled, torn, .. } = stats;
        (frames, verified, lost, doubled, torn)
    }

    #[test]
    fn what_is_lost_doubled_and_torn_is_counted() {
        let all: Vec<_> = (0..10).map(|frame| (frame, true)).collect();
        assert_eq!(stats(&all), (10, 10, 0, 0, 0));
        assert_eq!(
            stats(&all[3..]),
            (7, 7, 0, 0, 0),
            "a consumer that joins later has lost nothing"
        );
        assert_eq!(
            stats(&[(0, true), (3, true), (3, true), (2, true), (9, false)]),
            (5, 2, 7, 2, 1)
        );
        assert_eq!(stats(&[]), (0, 0, 0, 0, 0));
    }

    #[test]
    fn unchecked_words_are_not_right() {
        let verdict = |right, wrong| FrameCheck { right, wrong, first_wrong: 0 };
        assert!(verdict(64, 0).is_whole(64));
        assert!(!verdict(0, 0).is_whole(64) && !verdict(63, 0).is_whole(64));
        assert!(!verdict(64, 1).is_whole(64));
    }
}
