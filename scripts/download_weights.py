"""Downloads and converts the networks behind metrics (LPIPS, VGG-19, Inception, I3D).

    python scripts/download_weights.py --network=lpips_alex
    python scripts/download_weights.py --network=lpips_alex --source=alexnet-owt-7be5be79.pth,alex.pth

Files are checked against their published SHA-256; nothing in them is executed. With
--source, files that are already there are converted instead of downloaded.
"""

from absl import flags

from tfvid import cli

FLAGS = flags.FLAGS
flags.DEFINE_list("network", [], "names, comma separated, or all")
flags.DEFINE_list("source", [], "files of one network, in the order that --help lists")
flags.DEFINE_string("weights_dir", None, "folder for the converted weights; default: $TFVID_WEIGHTS or the cache")


def main():
    from tfvid.errors import UserError
    from tfvid.metrics import weights

    listed = "; ".join(f"{name} ({', '.join(f.name for f in n.files)})" for name, n in weights.NETWORKS.items())
    if not FLAGS.network:
        raise UserError(f"--network: expected one or more of {listed}, or all. Received: none")
    names = list(weights.NETWORKS) if FLAGS.network == ["all"] else FLAGS.network
    for name in names:
        weights.get(name)
    if FLAGS.source and len(names) != 1:
        raise UserError(f"--source: expected one --network with it. Received: {', '.join(names)}")
    for name in names:
        if FLAGS.source:
            path = weights.convert(name, FLAGS.source, FLAGS.weights_dir)
        else:
            path = weights.download(name, FLAGS.weights_dir)
        print(f"{path}: weights SHA-256 {weights.checksum(weights.load(name, FLAGS.weights_dir))}")


if __name__ == "__main__":
    cli.run(main)
