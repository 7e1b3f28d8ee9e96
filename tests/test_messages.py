"""The mistakes that users make most: exit code and last line of each, in this one place.

Other tests assert that a mistake is refused, and leave the wording to this table.
"""

import pytest
from helpers.composing import composed

from spinal_repro.io import run_lock

# command, exit code and message; {here} is the working directory, which is empty
TABLE = """
spinal-train datset=mnist
2 there is no configuration key 'datset'; did you mean 'dataset'?

spinal-train dataset=mnsit
2 there is no dataset 'mnsit'; did you mean 'mnist'?

spinal-train model=cifar_cn
2 there is no model 'cifar_cn'; did you mean 'cifar_cnn'?

spinal-train -m head=fc,spinall seed=0,1
2 there is no head 'spinall'; did you mean 'spinal'?

spinal-train head=spinal head.widht=8
2 there is no configuration key 'head.widht'; did you mean 'head.width'?

spinal-train head.width=8
2 head.width belongs to head=arch2, progressive or spinal, which is not chosen

spinal-train --explain -m seed=0,1
2 --explain shows one configuration; leave out -m

spinal-train recipe.epochs=-1
2 recipe.epochs must be above 0, got -1

spinal-train paper=mnist/vgg5_spinall
2 there is no cell or table 'mnist/vgg5_spinall'; did you mean 'mnist/vgg5_spinal'?

spinal-train runtime.device=gpu
2 runtime.device must be auto or cpu or cuda or mps, got 'gpu'

spinal-train head=spinal head.splits=640
2 head 'spinal': splits=640 cuts 320 features into empty slices; use splits=320 or fewer

spinal-train model.pretrained=nope.pth
2 there is no weights file or finished run nope.pth in the current folder or in the data folder data
(data.root, SPINAL_DATA), and this model has no published weights

spinal-train model=torchvision model.name=shufflenet_v2_x0_5 recipe=sgd model.pretrained=nope.ckpt
2 there is no weights file or finished run nope.ckpt in the current folder or in the data folder
data (data.root, SPINAL_DATA), and there is no set of torchvision weights for shufflenet_v2_x0_5
'nope.ckpt'; known: IMAGENET1K_V1

spinal-train model=timm model.name=resnet18.a1_in1k recipe=sgd
2 model.name=resnet18.a1_in1k also names weights: use model.name=resnet18 model.pretrained=a1_in1k

spinal-train dataset=mnist model.pretrained=nope.pth
2 the files of dataset=mnist are not in {here}/data/MNIST/raw (missing train-images-idx3-ubyte,
train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte). Fetch it with:
spinal-train dataset=mnist data.download=true; or give its folder: data.root=FOLDER or the
environment variable SPINAL_DATA. More: spinal data info mnist

spinal-train dataset=folder data.root=photos
2 the images of dataset=folder are not in {here}/photos (no such folder). Each part needs one
folder of image files per class; give the folder of the parts: data.root=FOLDER (of a finished run:
--root FOLDER) or SPINAL_DATA=FOLDER

spinal-train paper=mnist/cnn_spinal8 head=linear
2 paper=mnist/cnn_spinal8 sets head.layers, head.width, which head=linear does not have; add
~head.layers ~head.width, or leave out the head

spinal-train paper=mnist/cnn_spinal8 head=linear ~head.layers ~head.width data.root=nowhere
2 the files of dataset=mnist are not in {here}/nowhere/MNIST/raw (missing train-images-idx3-ubyte,
train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte). Fetch it with:
spinal-train dataset=mnist data.download=true; or give its folder: data.root=FOLDER or the
environment variable SPINAL_DATA. More: spinal data info mnist

spinal data show mnist model=vgg55
2 there is no model 'vgg55'; did you mean 'vgg5'?

spinal search dataset=mnsit
2 there is no dataset 'mnsit'; did you mean 'mnist'?

spinal gradients --dataset mnsit
2 there is no dataset 'mnsit'; did you mean 'mnist'?

spinal data fetch mnits
2 there is no data set 'mnits'; did you mean 'mnist'?

spinal eval nowhere
2 nowhere is not the folder of a finished run: there is no record.json; list finished runs with:
spinal status

spinal predict nowhere a.jpg
2 there is no file or folder a.jpg

spinal records add nowhere
2 nowhere cannot be read: No such file or directory
"""
MESSAGES = [block.strip().split("\n", 1) for block in TABLE.split("\n\n")]


@pytest.mark.parametrize("line, expected", MESSAGES, ids=[row[0] for row in MESSAGES])
def test_a_mistake_ends_in_one_line_and_writes_nothing(call, here, line, expected):
    code, message = " ".join(expected.split("\n")).format(here=here).split(" ", 1)
    assert call(line) == (int(code), "", f"{line.split()[0]}: {message}\n")
    assert not list(here.iterdir())


def test_a_run_that_another_process_trains(call):
    folder = composed("runtime.device=cpu").run_dir
    with run_lock(folder):
        ended = call("spinal-train runtime.device=cpu")
    assert ended.code == 69 and f"training the run in {folder};" in ended.err
    assert [path.name for path in folder.iterdir()] == [".lock"]
