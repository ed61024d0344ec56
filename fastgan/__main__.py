from fastgan.cli.main import main

main()
