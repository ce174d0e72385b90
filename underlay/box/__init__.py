"""What makes a Vagrant box of the image: a disk that starts by itself, and what a virtual machine needs besides."""
