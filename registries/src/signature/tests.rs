use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

const CONTENT: &[u8] = b"what a zip would be";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn keys(&self, name: &str, password: Option<&str>) -> KeyFiles {
        let (secret, public) = (format!("{name}.key"), format!("{name}.pub"));
        let password = password.map(ToOwned::to_owned);
        generate(&self.path(&secret), &self.path(&public), password).unwrap()
    }

    /// Runs the real minisign here, and says whether it succeeded and what it wrote.
    fn minisign(&self, arguments: &[&str], input: &str) -> (bool, String) {
        use std::io::Write;
        let mut child = Command::new("minisign")
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may be done before it reads anything.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.success(), text)
    }
}

fn no_password() -> io::Result<String> {
    panic!("the key has no password")
}

fn open(keys: &KeyFiles) -> SecretKey {
    SecretKey::read(&keys.secret, no_password).unwrap()
}

fn signed(keys: &KeyFiles) -> Signature {
    sign(CONTENT, "gefion-1", Digest::of(CONTENT), &open(keys)).unwrap()
}

fn check(
    content: &[u8],
    signature: &Signature,
    keys: &[&KeyFiles],
) -> Result<Verified, SignatureError> {
    let keys: Vec<PublicKey> = keys.iter().map(|keys| keys.key.clone()).collect();
    verify(content, signature, &keys)
}

#[test]
fn what_is_signed_holds_and_nothing_else() {
    let folder = Folder::new();
    let (ours, other) = (folder.keys("a", None), folder.keys("b", None));
    let signature = Signature::parse(&signed(&ours).to_text()).unwrap();
    let verified = check(CONTENT, &signature, &[&other, &ours]).unwrap();
    assert_eq!(verified.key_id, ours.key.key_id());
    assert_eq!(verified.digest, Digest::of(CONTENT));
    let digest = Digest::of(CONTENT);
    assert_eq!(verified.trusted_comment, format!("mlwm gefion-1 {digest}"));

    let changed = check(b"what a zip would bE", &signature, &[&ours]);
    assert!(matches!(changed, Err(SignatureError::Bad { .. })));
    let unknown = check(CONTENT, &signature, &[&other]);
    assert!(matches!(unknown, Err(SignatureError::UnknownKey { .. })));
    let nobody = check(CONTENT, &signature, &[]).unwrap_err().to_string();
    assert!(nobody.contains("there are none"), "{nobody}");
}

#[test]
fn the_trusted_comment_is_signed_and_names_the_content() {
    let folder = Folder::new();
    let keys = folder.keys("a", None);
    let text = signed(&keys).to_text();
    let renamed = Signature::parse(&text.replace("gefion-1 sha", "gefion-2 sha")).unwrap();
    let error = check(CONTENT, &renamed, &[&keys]).unwrap_err();
    assert!(matches!(error, SignatureError::Bad { .. }), "{error}");

    // A right signature whose comment is about another artifact.
    fs::write(folder.path("x.zip"), CONTENT).unwrap();
    let comment = format!("mlwm gefion-1 {}", Digest::of(b"another"));
    let (done, said) = folder.minisign(&["-Sm", "x.zip", "-s", "a.key", "-t", &comment], "");
    assert!(done, "{said}");
    let text = fs::read_to_string(folder.path("x.zip.minisig")).unwrap();
    let error = check(CONTENT, &Signature::parse(&text).unwrap(), &[&keys]).unwrap_err();
    assert!(
        matches!(error, SignatureError::OtherDigest { .. }),
        "{error}"
    );
}

#[test]
fn content_that_is_not_what_it_was_said_to_be_is_not_signed() {
    let folder = Folder::new();
    let key = open(&folder.keys("a", None));
    let error = sign(CONTENT, "x", Digest::of(b"another"), &key).unwrap_err();
    assert!(matches!(error, SignatureError::OtherContent { .. }));
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let error = sign(Broken, "x", Digest::of(b""), &key).unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
}

#[test]
fn minisign_verifies_ours() {
    let folder = Folder::new();
    for password in [None, Some("correct horse")] {
        let name = if password.is_some() {
            "sealed"
        } else {
            "plain"
        };
        let keys = folder.keys(name, password);
        let key = SecretKey::read(&keys.secret, || Ok(password.unwrap().to_owned())).unwrap();
        fs::write(folder.path("x.zip"), CONTENT).unwrap();
        let signature = sign(CONTENT, "gefion-1", Digest::of(CONTENT), &key).unwrap();
        fs::write(folder.path("x.zip.minisig"), signature.to_text()).unwrap();
        let public = format!("{name}.pub");
        let (holds, said) = folder.minisign(&["-Vm", "x.zip", "-p", &public], "");
        assert!(holds && said.contains("mlwm gefion-1 sha256:"), "{said}");
        let base64 = keys.key.to_base64();
        assert!(folder.minisign(&["-Vm", "x.zip", "-P", &base64], "").0);
        fs::write(folder.path("x.zip"), b"changed").unwrap();
        assert!(!folder.minisign(&["-Vm", "x.zip", "-p", &public], "").0);

        // It signs with our key, and we verify that.
        fs::write(folder.path("y.zip"), CONTENT).unwrap();
        let secret = format!("{name}.key");
        let input = password.map_or(String::new(), |password| format!("{password}\n"));
        let (done, said) = folder.minisign(&["-Sm", "y.zip", "-s", &secret], &input);
        assert!(done, "{said}");
        let text = fs::read_to_string(folder.path("y.zip.minisig")).unwrap();
        let verified = check(CONTENT, &Signature::parse(&text).unwrap(), &[&keys]).unwrap();
        assert!(verified.trusted_comment.starts_with("timestamp:"));
    }
}

#[test]
fn minisigns_own_keys_are_read() {
    let folder = Folder::new();
    let (done, said) = folder.minisign(&["-GW", "-p", "m.pub", "-s", "m.key"], "");
    assert!(done, "{said}");
    let public = PublicKey::read(&folder.path("m.pub")).unwrap();
    assert!(said.contains(&public.to_base64()), "{said}");
    let file = fs::read_to_string(folder.path("m.pub")).unwrap();
    assert!(file.contains(&public.key_id().to_string()), "{file}");
    assert_eq!(PublicKey::parse(&public.to_base64()).unwrap(), public);

    let key = SecretKey::read(&folder.path("m.key"), no_password).unwrap();
    assert_eq!(key.public_key(), &public);
    fs::write(folder.path("x.zip"), CONTENT).unwrap();
    let signature = sign(CONTENT, "x", Digest::of(CONTENT), &key).unwrap();
    fs::write(folder.path("x.zip.minisig"), signature.to_text()).unwrap();
    assert!(folder.minisign(&["-Vm", "x.zip", "-p", "m.pub"], "").0);

    let (done, said) = folder.minisign(&["-lSm", "x.zip", "-s", "m.key"], "");
    assert!(done, "{said}");
    let text = fs::read_to_string(folder.path("x.zip.minisig")).unwrap();
    assert!(matches!(
        Signature::parse(&text),
        Err(SignatureError::Legacy)
    ));
}

#[test]
#[ignore = "minisign derives the key with 1 GiB of memory"]
fn minisigns_own_password_is_understood() {
    let folder = Folder::new();
    let (done, said) = folder.minisign(&["-G", "-p", "m.pub", "-s", "m.key"], "pw\npw\n");
    assert!(done, "{said}");
    let key = SecretKey::read(&folder.path("m.key"), || Ok("pw".into())).unwrap();
    let public = PublicKey::read(&folder.path("m.pub")).unwrap();
    assert_eq!(key.public_key(), &public);
}

#[test]
fn keys_are_written_once_and_for_the_owner() {
    let folder = Folder::new();
    let keys = folder.keys("a", None);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&keys.secret), 0o600);
    let before = fs::read(&keys.secret).unwrap();
    let again = generate(&keys.secret, &folder.path("new.pub"), None);
    assert!(matches!(again, Err(SignatureError::KeyExists(_))));
    assert_eq!(fs::read(&keys.secret).unwrap(), before);
    // The public key is in the way: no secret key is left alone.
    let again = generate(&folder.path("new.key"), &keys.public, None);
    assert!(matches!(again, Err(SignatureError::KeyExists(_))));
    assert!(!folder.path("new.key").exists());
    let empty = generate(
        &folder.path("e.key"),
        &folder.path("e.pub"),
        Some(String::new()),
    );
    assert!(matches!(empty, Err(SignatureError::EmptyPassword)));
}

#[test]
fn a_password_is_asked_for_once_and_must_be_right() {
    let folder = Folder::new();
    let keys = folder.keys("a", Some("right"));
    let asked = Cell::new(0);
    let read = |password: &str| {
        SecretKey::read(&keys.secret, || {
            asked.set(asked.get() + 1);
            Ok(password.to_owned())
        })
    };
    let shown = format!("{:?}", read("right").unwrap());
    assert_eq!(shown, format!("SecretKey({})", keys.key.key_id()));
    assert!(matches!(
        read("wrong"),
        Err(SignatureError::Password { .. })
    ));
    assert_eq!(asked.get(), 2);
    let none = SecretKey::read(&keys.secret, || Err(io::ErrorKind::NotConnected.into()));
    assert!(matches!(none, Err(SignatureError::NoPassword(_))));
}

#[test]
fn what_is_no_key_is_refused() {
    let folder = Folder::new();
    let keys = folder.keys("a", None);
    let base64 = keys.key.to_base64();
    let with_comment = format!("untrusted comment: x\r\n{base64}\r\n");
    assert_eq!(PublicKey::parse(&with_comment).unwrap(), keys.key);
    let other_algorithm = base64.replacen("RW", "RX", 1);
    for text in [
        "",
        "RW",
        &base64[..55],
        &other_algorithm,
        &format!("x\n{base64}"),
    ] {
        assert!(PublicKey::parse(text).is_err(), "{text}");
    }
    assert!(PublicKey::read(&keys.secret).is_err());
    let public = SecretKey::read(&keys.public, no_password);
    assert!(matches!(public, Err(SignatureError::SecretKey { .. })));
    let text = fs::read_to_string(&keys.secret).unwrap();
    let line = text.lines().nth(1).unwrap();
    for length in 0..line.len() {
        fs::write(folder.path("cut"), format!("c\n{}\n", &line[..length])).unwrap();
        assert!(SecretKey::read(&folder.path("cut"), no_password).is_err());
    }
}

#[test]
fn two_trusted_keys_with_one_id_are_not_guessed_between() {
    use base64::Engine;
    let folder = Folder::new();
    let keys = folder.keys("a", None);
    let standard = base64::engine::general_purpose::STANDARD;
    let mut bytes = standard.decode(keys.key.to_base64()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let twin = PublicKey::parse(&standard.encode(bytes)).unwrap();
    let both = [keys.key.clone(), twin];
    let error = verify(CONTENT, &signed(&keys), &both).unwrap_err();
    assert!(matches!(error, SignatureError::AmbiguousKey(_)));
    let same = [keys.key.clone(), keys.key.clone()];
    verify(CONTENT, &signed(&keys), &same).unwrap();
}

#[test]
fn a_signature_that_is_cut_off_or_changed_does_not_hold() {
    let folder = Folder::new();
    let keys = folder.keys("a", None);
    let text = signed(&keys).to_text();
    let comment_end = text.find('\n').unwrap();
    for length in 0..text.trim_end().len() {
        assert!(Signature::parse(&text[..length]).is_err(), "{length}");
    }
    for at in comment_end + 1..text.len() - 1 {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        let outcome = Signature::parse(&changed).and_then(|s| check(CONTENT, &s, &[&keys]));
        assert!(outcome.is_err(), "byte {at} changed");
    }
    assert!(Signature::parse(&format!("{text}more\n")).is_err());
}

proptest! {
    #[test]
    fn any_text_ends_in_an_answer(text in "\\PC{0,200}(\n\\PC{0,120}){0,5}") {
        let _ = Signature::parse(&text);
        let _ = PublicKey::parse(&text);
    }
}
