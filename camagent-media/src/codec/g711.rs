//! G.711: eight bits a sample, no header. Only its two laws need a name; it is the one codec without parameters.

use crate::codec::Codec;

/// How a sample is compressed to eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Law {
    /// A-law: Europe and most of the world.
    A,
    /// µ-law: North America and Japan.
    Mu,
}

impl Law {
    /// The law of a codec; None when it is not G.711.
    pub const fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::Pcma => Some(Self::A),
            Codec::Pcmu => Some(Self::Mu),
            _ => None,
        }
    }

    /// The codec with this law.
    pub const fn codec(self) -> Codec {
        match self {
            Self::A => Codec::Pcma,
            Self::Mu => Codec::Pcmu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_and_codecs_lead_to_each_other() {
        for law in [Law::A, Law::Mu] {
            assert_eq!(Law::of(law.codec()), Some(law));
        }
        assert_eq!(Law::of(Codec::Aac), None);
    }
}
