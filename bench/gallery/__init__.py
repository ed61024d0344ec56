"""What each kind of GAN reaches in a short run on a CPU, beside what it has to beat."""
