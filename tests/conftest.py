"""Settings of every test process."""

import torch

# The networks of the tests are so small that a second thread costs more than it brings, most of
# all where other processes want the cores too.
torch.set_num_threads(1)
