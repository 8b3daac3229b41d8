//! What variables are called where those of several inputs and datastores come together.

/// The names of things that each have a name, an input and a datastore: the name alone, with the
/// input before it where another has the same name (`{input}_{name}`), and with the datastore
/// before both where that is not enough (`{datastore}_{input}_{name}`).
pub fn distinct_names(things: &[[&str; 3]]) -> Vec<String> {
    let mut parts = vec![1; things.len()];
    let called = |parts: &[usize]| -> Vec<String> {
        let name = |(thing, count): (&[&str; 3], &usize)| {
            let mut used = thing[..*count].to_vec();
            used.reverse();
            used.join("_")
        };
        things.iter().zip(parts).map(name).collect()
    };
    let mut names = called(&parts);
    for _ in 1..3 {
        for (at, name) in names.iter().enumerate() {
            let is_taken = names.iter().filter(|other| *other == name).count() > 1;
            if is_taken {
                parts[at] = (parts[at] + 1).min(3);
            }
        }
        names = called(&parts);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_longer_only_where_they_collide() {
        let things = [
            ["t2m", "st", "danra"],
            ["u10m", "st", "danra"],
            ["u10m", "st", "era5"],
            ["v10m", "st", "danra"],
            ["v10m", "other", "danra"],
        ];
        assert_eq!(
            distinct_names(&things),
            [
                "t2m",
                "danra_st_u10m",
                "era5_st_u10m",
                "st_v10m",
                "other_v10m"
            ]
        );
        // A variable may be called what an input makes of another.
        let things = [["u", "a", "d"], ["u", "b", "d"], ["a_u", "c", "d"]];
        assert_eq!(distinct_names(&things), ["d_a_u", "b_u", "c_a_u"]);
    }
}
