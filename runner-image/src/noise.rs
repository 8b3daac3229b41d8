//! Random numbers for models that need some: functions of the seed, the member, the step and the
//! number of the value, with no state between them. They are the same on every machine: whole
//! numbers throughout, and for the normal distribution the portable `libm`.

use mlwm_spec::interface::{Generator, InputRole, Interface};

/// What the random numbers of a forecast come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The seed of the task.
    pub seed: u64,
    /// The ensemble member.
    pub member: u32,
}

/// The increment of SplitMix64.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// 2^-53: what turns 53 bits into a number below 1.
const TWO_TO_MINUS_53: f64 = 1.0 / 9_007_199_254_740_992.0;

/// The finalizer of SplitMix64.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Seed {
    /// The hash of the seed and the member, of a step (from 1), which the hashes of its values
    /// start from.
    fn of_step(self, step: u64) -> u64 {
        [self.seed, u64::from(self.member), step]
            .into_iter()
            .fold(0, absorbed)
    }
}

/// One more number in a hash: SplitMix64's step from where the number leads.
fn absorbed(hash: u64, number: u64) -> u64 {
    mixed((hash ^ number).wrapping_add(GOLDEN_GAMMA))
}

/// The random numbers of one step for one input, `[grid_index, channel]`. Channels are counted
/// through all inputs that take noise, in their order; value number `channel * points + point` of
/// a step is that of a channel at a point, however the tensor is laid out.
fn noise(
    generator: Generator,
    step_hash: u64,
    first_channel: u64,
    channels: u64,
    points: u64,
) -> Vec<f32> {
    let mut values = Vec::with_capacity((channels * points) as usize);
    for point in 0..points {
        for channel in first_channel..first_channel + channels {
            values.push(value(generator, step_hash, channel * points + point));
        }
    }
    values
}

/// Value number `index` of a step.
fn value(generator: Generator, step_hash: u64, index: u64) -> f32 {
    match generator {
        Generator::HashU8 => (absorbed(step_hash, index) & 0xff) as f32,
        // Box-Muller, with two hashes for each value.
        Generator::Normal => {
            let radius = (absorbed(step_hash, 2 * index) >> 11) + 1;
            let angle = absorbed(step_hash, 2 * index + 1) >> 11;
            let radius = libm::sqrt(-2.0 * libm::log(radius as f64 * TWO_TO_MINUS_53));
            let angle = std::f64::consts::TAU * (angle as f64 * TWO_TO_MINUS_53);
            (radius * libm::cos(angle)) as f32
        }
    }
}

/// The random numbers of a step for every input that takes some, in their order.
pub(crate) fn of_step(interface: &Interface, seed: Seed, step: u64) -> Vec<Vec<f32>> {
    let step_hash = seed.of_step(step);
    let points = interface.grid.points();
    let mut first = 0;
    let mut all = Vec::new();
    for input in &interface.inputs {
        if let InputRole::Noise {
            generator,
            channels,
        } = input.role
        {
            all.push(noise(generator, step_hash, first, channels, points));
            first += channels;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = Seed {
        seed: 42,
        member: 3,
    };

    #[test]
    fn the_hash_is_that_of_splitmix64() {
        // The first outputs of SplitMix64 from the state 0, as published with it.
        assert_eq!(absorbed(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mixed(GOLDEN_GAMMA.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn another_seed_member_step_or_value_is_another_number() {
        let hash = SEED.of_step(7);
        let byte = |hash: u64, index| value(Generator::HashU8, hash, index);
        let others = [
            Seed { seed: 43, ..SEED }.of_step(7),
            Seed { member: 4, ..SEED }.of_step(7),
            SEED.of_step(8),
        ];
        for other in others {
            let same = (0..512)
                .filter(|i| byte(hash, *i) == byte(other, *i))
                .count();
            assert!(same < 16, "{same} of 512 are the same");
        }
        assert!((0..512).all(|i| byte(hash, i).fract() == 0.0 && byte(hash, i) < 256.0));
    }

    #[test]
    fn normal_noise_is_normal_and_the_same_on_every_machine() {
        let hash = SEED.of_step(1);
        let count = 20_000;
        let values: Vec<f64> = (0..count)
            .map(|i| f64::from(value(Generator::Normal, hash, i)))
            .collect();
        let mean = values.iter().sum::<f64>() / count as f64;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / count as f64;
        let fourth = values.iter().map(|v| v.powi(4)).sum::<f64>() / count as f64;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
        assert!((fourth - 3.0).abs() < 0.3, "{fourth}");
        let bits: Vec<u32> = (0..4)
            .map(|i| value(Generator::Normal, hash, i).to_bits())
            .collect();
        // As Python's `math` has them.
        assert_eq!(
            bits,
            [1_065_598_893, 3_193_966_249, 1_074_740_486, 3_213_080_533]
        );
    }
}
