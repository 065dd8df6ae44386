"""The Bash kernel: bash_kernel, with room for more output."""

from application import Application, leave_folder
from bash_kernel.kernel import BashKernel

if __name__ == "__main__":
    leave_folder()
    Application.launch_instance(kernel_class=BashKernel)
