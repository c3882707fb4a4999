"""The README's table, from a benchmark's JSON: ``python -m benchmarks.table benchmarks/results.json``."""

import json
import sys

PEERS = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "opencv": "OpenCV", "ndimage": "scipy.ndimage"}
ROWS = {
    ("1x1", "1x512x28x28 to 128, 1x1"): "1×1 layer, 512×28×28 to 128",
    ("3x3", "1x64x56x56 to 64, 3x3"): "3×3 layer, 64×56×56 to 64",
    ("3x3", "1x256x14x14 to 256, 3x3"): "3×3 layer, 256×14×14 to 256",
    ("strided", "1x3x224x224 to 64, 7x7 s2"): "7×7 stem, stride 2, 3×224×224 to 64",
    ("depthwise", "1x32x112x112 to 32, 3x3 g32"): "3×3 depthwise, 32×112×112",
    ("tiny-map", "8x512x7x7 to 512, 3x3"): "3×3 layer, 8 images of 512×7×7",
    ("rgb", "1x3x1024x1024 to 8, 5x5"): "8 filters 3×5×5 on a 1024² photograph",
    ("single", "1x1x1024x1024 to 1, 3x3"): "3×3 on a 1024² image",
    ("single", "1x1x2048x2048 to 1, 11x11"): "11×11 on a 2048² image",
    ("3x3 dinput", "1x64x56x56 to 64, 3x3"): "3×3 layer, 64×56×56 to 64, gradient of the input",
    ("3x3 dweight", "1x64x56x56 to 64, 3x3"): "3×3 layer, 64×56×56 to 64, gradient of the weights",
    ("single dinput", "1x1x2048x2048 to 1, 11x11"): "11×11 on a 2048² image, gradient of the image",
    ("single dweight", "1x1x2048x2048 to 1, 11x11"): "11×11 on a 2048² image, gradient of the kernel",
    ("deform", "1x64x56x56 to 64, 3x3"): "3×3 deformable layer, 64×56×56 to 64",
    ("float32 correlate", "2048^2, 3x3"): "`ndimage.correlate`, 2048², 3×3",
    ("float32 correlate", "2048^2, 9x9"): "`ndimage.correlate`, 2048², 9×9",
    ("float32 RGB correlate", "2048^2 x 3, 7x7"): "`ndimage.correlate`, 2048²×3, 7×7",
    ("float64 correlate", "2048^2, 7x7"): "`ndimage.correlate`, 2048², 7×7, float64",
}


def main(path):
    with open(path) as file:
        run = json.load(file)
    print("| one thread, float32 | pyconv, ms | " + " | ".join(PEERS.values()) + " |")
    print("|---|---|" + "---|" * len(PEERS))
    for result in run["results"]:
        row = ROWS.get((result["group"], result["name"]))
        if row and result["threads"] == 1:
            faster = [result["times_faster_than"].get(peer) for peer in PEERS]
            cells = ["" if ratio is None else f"{ratio:.3g}×" for ratio in faster]
            print(f"| {row} | {result['milliseconds']['pyconv']['median']:.3g} | " + " | ".join(cells) + " |")
    versions = ", ".join(f"{name} {run['versions'][peer]}" for peer, name in PEERS.items() if peer in run["versions"])
    print(f"\n{run['machine']}, level {run['isa']}, {run['date'][:10]}; {versions}.")


if __name__ == "__main__":
    main(sys.argv[1])
