//! Builds of a `Containerfile`, the same on each engine.

use bytes::Bytes;
use mlwm_engines::{BuildRequest, BuildSecret, Engine, Error, Kind};

use crate::support::{BASE, docker, docker_cli, run, script};

const TOKEN: &str = "PLANTED-build-token-4Hq9zR";

fn context(containerfile: &str) -> impl futures::Stream<Item = std::io::Result<Bytes>> + use<> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [("Containerfile", containerfile), ("data", "winds")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let archive = Bytes::from(tar.into_inner().unwrap());
    futures::stream::iter([Ok(archive)])
}

struct Builder<'e> {
    engine: &'e Engine,
    request: BuildRequest,
    lines: Vec<String>,
}

impl Builder<'_> {
    /// Builds on the base, with these instructions.
    async fn build(&mut self, instructions: &str) -> Result<mlwm_spec::Digest, Error> {
        self.build_all(&format!("ARG BASE\nFROM ${{BASE}}\n{instructions}"))
            .await
    }

    async fn build_all(&mut self, containerfile: &str) -> Result<mlwm_spec::Digest, Error> {
        self.lines.clear();
        let lines = &mut self.lines;
        let mut keep = |line: &str| lines.push(line.to_owned());
        self.engine
            .build(context(containerfile), &self.request, &mut keep)
            .await
    }

    /// Builds what cannot be built.
    async fn fails(&mut self, containerfile: &str, texts: &[&str]) {
        let error = self.build_all(containerfile).await.unwrap_err();
        assert!(matches!(error, Error::Build { .. }), "{error}");
        for text in texts {
            assert!(error.to_string().contains(text), "{text}: {error}");
        }
        assert!(!error.to_string().contains(TOKEN), "{error}");
    }

    fn said(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

/// `save` gives an image as an archive, by an independent client.
pub(crate) async fn builds(engine: &Engine, save: &dyn Fn(&str) -> Vec<u8>) {
    let kind = format!("{:?}", engine.info().kind).to_lowercase();
    let mut builder = Builder {
        engine,
        request: BuildRequest {
            tag: format!("mlwm-test/built:{kind}"),
            dockerfile: "Containerfile".into(),
            labels: [("io.mlwm.test".into(), "built".into())].into(),
            build_args: [("BASE".into(), BASE.into())].into(),
            secrets: Vec::new(),
        },
        lines: Vec::new(),
    };
    let id = builder
        .build("COPY data /data\nRUN echo is building\n")
        .await
        .unwrap();
    assert!(builder.said("COPY data"), "{:?}", builder.lines);
    let tag = builder.request.tag.clone();
    let image = engine.image(&tag).await.unwrap().unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.labels["io.mlwm.test"], "built");
    let mut in_image = script("cat /data");
    in_image.image = tag.clone();
    assert_eq!(run(engine, &in_image).await.stdout(), ["winds"]);

    failures(&mut builder).await;
    let same = engine.image(&tag).await.unwrap().unwrap();
    assert_eq!(same.id, id, "a build that fails leaves the image as it was");

    secrets(&mut builder, save).await;
}

async fn failures(builder: &mut Builder<'_>) {
    let on_base = |text: &str| format!("FROM {BASE}\n{text}\n");
    builder
        .fails(&on_base("COPY absent /data"), &["absent"])
        .await;
    builder
        .fails(&on_base("RUN echo about to fail; exit 7"), &["7"])
        .await;
    assert!(builder.said("about to fail"), "{:?}", builder.lines);
    builder.fails(&on_base("FLY to /data"), &["FLY"]).await;
    builder.fails("", &[]).await;
    // Nothing listens there, so that nothing is looked for on a network.
    let absent = "localhost:1/mlwm-test/absent:none";
    builder.fails(&format!("FROM {absent}\n"), &[absent]).await;
    let broken = futures::stream::iter([
        Ok(Bytes::from(vec![0; 100])),
        Err(std::io::Error::other("the context broke off")),
    ]);
    let request = builder.request.clone();
    let broken = builder.engine.build(broken, &request, &mut |_| ()).await;
    broken.unwrap_err();
}

async fn secrets(builder: &mut Builder<'_>, save: &dyn Fn(&str) -> Vec<u8>) {
    // Never one that was built before: engines keep the results of steps.
    let now = std::time::SystemTime::now();
    let uses = &format!(
        "ENV BUILT=\"{now:?}\"\nRUN --mount=type=secret,id=token,required=true \
        sha256sum /run/secrets/token | cut -c1-64 >/used && echo printed $(cat /run/secrets/token)\n\
        COPY . /context\n"
    );
    let given = BuildSecret::new("token", TOKEN.into()).unwrap();
    let other = BuildSecret::new("other", b"another".to_vec()).unwrap();
    builder.request.secrets = vec![other];
    builder.build(uses).await.unwrap_err();
    builder.request.secrets.push(given);
    builder.build(uses).await.unwrap();
    assert!(builder.said("printed ***"), "{:?}", builder.lines);
    assert!(!builder.said(TOKEN), "{:?}", builder.lines);
    let mut in_image = script("cat /used; ls --all /context; ls --all /run /run/secrets");
    in_image.image = builder.request.tag.clone();
    let ran = run(builder.engine, &in_image).await;
    let digest = mlwm_spec::Digest::of(TOKEN).hex();
    let shown = ran.stdout();
    assert_eq!(shown[0], digest, "{shown:?}");
    assert!(shown.contains(&"data"), "{shown:?}");
    assert!(
        !shown.iter().any(|line| line.contains("secret-")),
        "{shown:?}"
    );
    let archive = save(&builder.request.tag);
    let holds = |text: &str| {
        let text = text.as_bytes();
        archive.windows(text.len()).any(|window| window == text)
    };
    assert!(holds("winds") && holds(&digest));
    assert!(!holds(TOKEN), "the image holds the secret");

    // A step that shows it and fails.
    let shows = format!(
        "FROM {BASE}\nRUN --mount=type=secret,id=token echo $(cat /run/secrets/token) && exit 3\n"
    );
    builder.fails(&shows, &["3"]).await;
    assert!(
        builder.said("***") && !builder.said(TOKEN),
        "{:?}",
        builder.lines
    );
}

#[tokio::test]
async fn docker_builds() {
    let engine = docker().await;
    assert_eq!(engine.info().kind, Kind::Docker);
    let save = |reference: &str| {
        let saved = std::process::Command::new("docker")
            .args(["save", reference])
            .output();
        saved.unwrap().stdout
    };
    builds(&engine, &save).await;
    let history = docker_cli(&["history", "--no-trunc", "mlwm-test/built:docker"]);
    assert!(history.contains("cat /run/secrets/token"), "{history}");
    assert!(!history.contains(TOKEN), "{history}");
    docker_cli(&["rmi", "--force", "mlwm-test/built:docker"]);
}
